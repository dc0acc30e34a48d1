// A neighbour of `murank serve` on the same box, with libcurl: looks for the person of a crop.
//
//   g++ -std=c++17 examples/service_client.cpp -lcurl -o service_client
//   ./service_client murank.sock crop.jpg
#include <curl/curl.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

static std::string base64(const std::string& bytes) {
    static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    for (size_t i = 0; i < bytes.size(); i += 3) {
        unsigned three = 0;
        for (size_t j = i; j < i + 3; ++j) three = three << 8 | (j < bytes.size() ? (unsigned char)bytes[j] : 0);
        for (int j = 0; j < 4; ++j) text += i + j > bytes.size() ? '=' : digits[three >> (18 - 6 * j) & 63];
    }
    return text;
}

static size_t keep(char* data, size_t size, size_t count, void* text) {
    static_cast<std::string*>(text)->append(data, size * count);
    return size * count;
}

int main(int count, char** words) {
    if (count != 3) return std::cerr << "usage: service_client SOCKET CROP\n", 2;
    std::ifstream file(words[2], std::ios::binary);
    if (!file) return std::cerr << "there is no crop " << words[2] << '\n', 2;
    const std::string crop{std::istreambuf_iterator<char>(file), {}};
    const std::string body = "{\"crop\": \"" + base64(crop) + "\", \"top_k\": 3, \"deadline_ms\": 500}";
    std::string answer;
    long code = 0;
    CURL* curl = curl_easy_init();
    curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, words[1]);
    curl_easy_setopt(curl, CURLOPT_URL, "http://localhost/v1/gallery/search");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.c_str());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    const CURLcode failed = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    if (failed) std::cerr << "no service answers at " << words[1] << ": " << curl_easy_strerror(failed) << '\n';
    else std::cout << code << ' ' << answer << '\n';  // JSON: candidate matches, or a sentence
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return failed ? 2 : code == 200 ? 0 : 1;
}
