"""Hedges at inference, H1 to H5: Khalaf et al. 2025 (arXiv:2506.19248) and Huang et al. 2025 (arXiv:2503.21878).

A tenth of a gold standard deviation, half of what counts as an effect elsewhere (`claim.SMALL`), is the threshold of
H1 and H2: best-of-n's own fall against the smallest RMs is of the order of SMALL, so that with SMALL neither could
fail. H4's is half of that again: what two ways to spend the same KL on the same order of draws differ by is to be less
than anybody would change a method for.
"""

import numpy as np

from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, claim
from rmo.claims.evidence import View
from rmo.claims.kinds import GREATEST, LEAST, SIZE
from rmo.methods.paper import BEST_OF_N

POISSON, SOFT, PESSIMISM = "best_of_poisson", "soft_best_of_n", "pessimism_n"
NOTHING = 0.1  # gold sd
PLACES = np.linspace(0.2, 1.0, 9)  # of the range of d


def smallest(view: View, method: str) -> list[Group]:
    """A method's curves against the smallest RM of best-of-n's sweep, by their setting, the smallest first."""
    main = view.sizes(BEST_OF_N, 1)[0].id
    found = [g for g in view.evidence.groups.get(method, []) if g.id.same_rm == main.same_rm]
    if not found:
        raise Missing(f"no {method} curves against best-of-n's smallest RM")
    return sorted(found, key=lambda g: [float(x) for x in g.id.settings.values() if not isinstance(x, str)])


def best_of_n_beside(view: View) -> Group:
    return view.sizes(BEST_OF_N, 1)[0]


@claim("H1", (-INF, NOTHING), "hedged_regret", kind=GREATEST)
def h1(view: View) -> list[float]:
    """A hedge that is chosen on half of the prompts costs next to nothing on the other half (Khalaf et al. 2025).

    Best-of-Poisson against every RM size: highest gold on one half of the prompts less gold there at the mean n that is
    best on the other half, mean over both ways round; gold sd."""
    out = []
    for g in view.sizes(POISSON, 1):
        line = view.line(g)
        i, j = line.tops(line.end)
        even, odd = line.halves
        out.append(float(even[i] - even[j] + odd[j] - odd[i]) / 2)
    return out


@claim("H2", (-INF, NOTHING), "inference_methods", kind=GREATEST)
def h2(view: View) -> list[float]:
    """Gold of inference-time pessimism does not fall as draws are added (Huang et al. 2025).

    Smallest RM, every beta: how far gold at the largest n lies below its peak at fewer draws; gold sd."""
    return [view.line(g).fall() for g in smallest(view, PESSIMISM)]


@claim("H3", (0, INF), "inference_methods", kind=LEAST)
def h3(view: View) -> list[float]:
    """Best-of-n falls where inference-time pessimism does not (Huang et al. 2025).

    Smallest RM: how far best-of-n's gold falls from its peak to its largest n, and by how much more than that of
    pessimism at the largest beta, the smaller of the two; gold sd."""
    cautious, fall = smallest(view, PESSIMISM)[-1], view.line(best_of_n_beside(view)).fall()
    return [fall, fall - view.line(cautious).fall()]


@claim("H4", (-INF, NOTHING / 2), "inference_methods", kind=SIZE)
def h4(view: View) -> list[float]:
    """Best-of-Poisson is best-of-n with a real parameter: at equal KL its gold is the same (Khalaf et al. 2025).

    Smallest RM: the difference in gold from best-of-n at nine places between a fifth and all of the shared range of d;
    gold sd."""
    mine, theirs = view.line(smallest(view, POISSON)[0]), view.line(best_of_n_beside(view))
    d = PLACES * min(mine.end, theirs.end)
    return [float(x) for x in mine.at(d) - theirs.at(d)]


@claim("H5", (0, INF), "inference_methods")
def h5(view: View) -> float:
    """A temperature protects where too many draws are taken (Khalaf et al. 2025).

    Smallest RM: gold of soft best-of-n, at its highest temperature, less gold of best-of-n, both at their largest n;
    gold sd."""
    warm, cold = view.line(smallest(view, SOFT)[-1]), view.line(best_of_n_beside(view))
    return float(warm.gold[-1] - cold.gold[-1])
