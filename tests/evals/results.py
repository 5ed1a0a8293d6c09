"""Small results for tests of what is done with them."""

from evals.results import CaseResult, SuiteResult, summarise


def result(shift: float = 0.0, cases: int = 24, name: str = "small", hostile: bool = False) -> SuiteResult:
    """Two systems over `cases` cases; `shift` raises the first. Equal arguments give equal results."""
    per_case = [
        CaseResult(
            f"c{n:02}",
            f"d{n // 2}",
            {
                "model/rouge_l": 0.4 + shift + 0.01 * (n % 5),
                "model/words": 100.0 + n,
                "summary/rouge_l": 0.3 + 0.01 * (n % 3),
            },
            {
                "title": "<script>alert(1)</script>" if hostile else f"Title {n}",
                "texts": {"model": "</pre><img src=x onerror=alert(2)>" if hostile else "text"},
                "ranks": {"hybrid": {"d1": 1, "d2": None}},
                "retrieved": ["a.md", "b.md"],
            },
        )
        for n in range(cases)
    ]
    meta = {"data_hash": "abc", "model": "tiny", "seconds": {"write": 1.5}, "splits": ["test"]}
    return summarise(name, "model/rouge_l", per_case, [("model", "summary")], meta, draws=200)
