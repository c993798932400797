"""How the page looks: black on white, legible on a projector and on paper, with the system's fonts.

What is chosen is solid, what is only likely is hatched, what failed has a thick border: nothing is told by
colour alone. The names of the classes are those that `der_graph.ui_route` writes.
"""

CSS = """
.gradio-container {max-width: 1500px !important; margin: 0 auto !important}
.der-title {font-size: 1.25rem; margin: 0}
.der-title b {margin-right: .75rem}
.der-title span {font-size: 1rem; opacity: .85}
#der-panel {height: calc(100vh - 375px); min-height: 360px; overflow-y: auto !important;
  padding: .75rem 1rem !important; border: 1px solid currentColor; border-radius: 4px}
.der-route, .der-route * {box-sizing: border-box}
.der-route {font-size: 1rem; line-height: 1.35; color: var(--body-text-color)}
.der-route p {margin: 0 0 .2rem}
.der-meters {position: sticky; top: -.75rem; padding: .75rem 0 .5rem; margin-top: -.75rem; z-index: 1;
  background: var(--body-background-fill)}
.der-meter-line {display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1.5rem;
  font-variant-numeric: tabular-nums}
.der-meter {display: flex; height: 14px; border: 1px solid currentColor; margin-top: .3rem; overflow: hidden}
.der-limits {font-size: .875rem; opacity: .85; margin: .3rem 0 0 !important; overflow-wrap: anywhere}
.der-spent, .der-chosen .der-fill {background: currentColor}
.der-pending, .der-fill {background:
  repeating-linear-gradient(135deg, currentColor 0 1.5px, transparent 1.5px 5px)}
.der-steps {list-style: none; margin: .25rem 0 0; padding: 0}
.der-step {margin: 0; padding: .3rem 0 .4rem; border-top: 1px solid var(--border-color-primary)}
.der-head {overflow-wrap: anywhere}
.der-number {display: inline-block; min-width: 1.5em; text-align: center; border: 1px solid currentColor;
  border-radius: 50%; font-size: .85rem; margin-right: .25rem}
.der-note {opacity: .8; font-size: .875rem; margin-left: .35rem}
.der-body {display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .35rem 0 0 2rem}
.der-chances {flex: 0 1 19rem; min-width: 16rem}
.der-chance {display: grid; grid-template-columns: minmax(4rem, 6.5rem) 1fr 4.5rem; gap: .5rem;
  align-items: center; font-size: .875rem; line-height: 1.3}
.der-name {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.der-track {display: block; height: 10px; border-bottom: 1px solid var(--border-color-primary)}
.der-fill {display: block; height: 10px}
.der-number-of {font-variant-numeric: tabular-nums}
.der-chosen {font-weight: 700}
.der-forbidden {opacity: .7}
.der-forbidden .der-name {text-decoration: line-through}
.der-answer {flex: 1 1 15rem; min-width: 0; align-self: flex-start; padding: .25rem .7rem .4rem;
  border: 1px solid currentColor; border-radius: 4px}
.der-answer .der-text {white-space: pre-wrap; overflow-wrap: anywhere; max-height: 9.5rem; overflow-y: auto;
  font-size: 1.05rem; min-height: 1.35em}
.der-open {border-style: dashed}
.der-failed {border-width: 3px}
.der-problem {border: 3px solid currentColor; padding: .4rem .7rem; font-weight: 600; overflow-wrap: anywhere;
  white-space: pre-wrap}
.der-state {font-weight: 600}
#der-limits {padding-top: .25rem}
#der-chat .top-panel {display: none}
"""
"""Style sheet of the page."""
