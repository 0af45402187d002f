from __future__ import annotations

from paasd import errors


def test_codes_are_unique_and_survive_the_wire() -> None:
    tree = [cls for cls in errors._tree(errors.PaasdError) if cls.__module__ == errors.__name__]
    assert len({cls.code for cls in tree}) == len(tree)
    for cls in tree:
        rebuilt = errors.from_problem(cls("seen", hint="do").problem())
        assert type(rebuilt) is cls
        assert (rebuilt.detail, rebuilt.hint) == ("seen", "do")


def test_an_unknown_code_becomes_the_base_class() -> None:
    assert type(errors.from_problem({"code": "from-the-future", "detail": "x"})) is errors.PaasdError


def test_problem_details_have_the_members_of_rfc_9457() -> None:
    problem = errors.NotFound("no app").problem()
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert problem["status"] == 404
