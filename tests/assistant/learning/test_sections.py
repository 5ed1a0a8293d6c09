from assistant.learning.sections import markers, sections_of, without_markers, written_sections

DOCUMENT = """# Rate limits

| | |
|---|---|

## Summary

One sentence of the brief [b1]. A fact [1][2].

```
## not a heading
```

## Goals

- **Runbook › Limits:** Keep the API alive [2].

## Empty

## Open questions

- Who owns it?

## References

- [1] Runbook

## Appendix: checks

| check |
"""


def test_sections_are_told_apart_from_code() -> None:
    sections = sections_of(DOCUMENT)
    assert list(sections) == ["Summary", "Goals", "Empty", "Open questions", "References", "Appendix: checks"]
    assert "## not a heading" in sections["Summary"]


def test_only_what_somebody_could_have_written_counts() -> None:
    assert list(written_sections(DOCUMENT)) == ["Summary", "Goals"]


def test_the_first_of_two_sections_with_one_title_counts() -> None:
    assert sections_of("## A\n\none\n\n## A\n\ntwo") == {"A": "one"}


def test_markers_are_read_and_taken_out() -> None:
    text = "A fact [1][2, 3]. Said [b1]. See [1](https://example.com).\n\n- **A › B:** Quoted [4]."
    assert markers(text) == ["1", "2", "3", "b1", "4"]
    assert without_markers(text) == "A fact. Said. See [1](https://example.com).\n\n- Quoted."
