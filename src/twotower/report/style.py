"""The look of the page: light and dark, wide and narrow."""

STYLE = """:root { --text: #222; --pale: #595959; --line: #ddd; --page: #fff; --box: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --pale: #a8a8a8; --line: #3c4046; --page: #16181b; --box: #22262b; }
  img { filter: invert(.9) hue-rotate(180deg); }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 84rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; } h4 { margin: 1rem 0 .2rem; font-size: .9rem; }
.answers { background: var(--box); border-radius: .4rem; margin: 0; max-width: 60rem;
  padding: .8rem 1rem .8rem 2rem; }
.answers li + li { margin-top: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; font-weight: normal; }
th:first-child { text-align: left; white-space: normal; position: sticky; left: 0;
  background: var(--page); min-width: 12rem; }
thead th { border-bottom: 2px solid var(--text); font-weight: bold; }
.reference > * { color: var(--pale); font-style: italic; }
td small, th small { display: block; font-weight: normal; color: var(--pale); font-size: .8rem; }
figure { margin: 1.5rem 0; } img { width: calc(var(--width) * .78); max-width: 100%; height: auto; }
dl, details { font-size: .88rem; max-width: 60rem; }
dt { font-weight: bold; } dd { margin: 0 0 .4rem 1.2rem; color: var(--pale); }
@media (min-width: 40rem) { dl { display: grid; grid-template-columns: fit-content(18rem) 1fr;
  gap: .2rem 1rem; } dd { margin: 0; } }
summary { cursor: pointer; } pre { white-space: pre-wrap; background: var(--box);
  padding: .5rem; margin: .3rem 0; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .7rem; }
  th, td { padding: .3rem .4rem; }
  th:first-child { min-width: 6.6rem; max-width: 6.6rem; font-size: .8rem; }
  td small { white-space: normal; }
  .answers { padding: .6rem .7rem .6rem 1.6rem; font-size: .92rem; }
  img { max-width: none; width: calc(var(--width) * .48); }
}
"""
