"""How the page looks, on a screen and on paper."""

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: #fff; color: #1f2328;
  font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d0d7de; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
h4 { font-size: .85rem; margin: 0 0 .2rem; }
header p { margin: 0; padding: .5rem .8rem; border-left: 4px solid #9a6700; background: #fff8c5; }
footer { margin-top: 2.5rem; color: #57606a; font-size: .85rem; }
p { margin: .4rem 0; max-width: 46rem; }
table { border-collapse: collapse; margin: .6rem 0; }
caption { text-align: left; color: #57606a; font-size: .9rem; padding-bottom: .2rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0;
  border-bottom: 1px solid #d0d7de; font-weight: 400; overflow-wrap: anywhere; }
thead th { font-weight: 600; border-bottom-width: 2px; }
tbody th { min-width: 7rem; }
table.numbers td, table.numbers thead th + th { text-align: right; padding: .25rem 0 .25rem 1.2rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 0; }
figcaption { color: #57606a; font-size: .85rem; }
svg { width: 100%; max-width: 44rem; height: auto; }
svg text { font: 12px system-ui, "Liberation Sans", sans-serif; fill: #1f2328; }
article { margin: 1rem 0; padding: .7rem .8rem; border: 1px solid #d0d7de; border-radius: 6px; }
article p { margin: 0 0 .5rem; font-size: .9rem; }
.change { display: flex; gap: 1.2rem; }
.change img { display: block; }
.query { flex: none; }
.lines { min-width: 0; }
ol { list-style: none; margin: 0 0 .6rem; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem; }
li { line-height: 1.25; }
article li { width: 4.6rem; }
article li img { border: 4px solid #d0d7de; width: 64px; height: 128px; }
article li.match img { border: 4px solid #1a8f49; }
article li.other img { border: 4px dashed #cf2d2d; }
article li.junk img { border: 4px dotted #8c959f; }
li figcaption { font-size: .72rem; }
li figcaption span { display: block; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) {
  body { padding: .8rem; }
  .change { flex-direction: column; }
  .scroll { overflow-x: auto; }
}
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  article, figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  article { padding: 6px; margin: 8px 0; }
  .change { gap: 10px; }
  .query img { width: 70px; height: 140px; }
  ol { gap: 4px; margin: 0; flex-wrap: nowrap; }
  article li { width: 50px; }
  article li img { width: 40px; height: 80px; }
  li figcaption { font-size: 7pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
