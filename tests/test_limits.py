from src.limits import NotPossible, attempt


def halved(number, by=2):
    if number < by:
        raise NotPossible("the number is below 2: 4 would do")
    return number // by


def test_a_result_passes_and_a_reason_takes_its_place():
    assert attempt(halved, 8) == 4
    reason = attempt(halved, 1)
    assert isinstance(reason, NotPossible)
    assert str(reason) == "not possible: the number is below 2: 4 would do"
    assert str(NotPossible(str(reason))) == str(reason), "said once, however often it is handed on"


def test_a_reason_among_the_arguments_is_handed_on():
    reason = NotPossible("nothing there")
    assert attempt(halved, reason) is reason
    assert attempt(halved, 8, by=reason) is reason


def test_other_errors_are_errors():
    try:
        attempt(halved, "eight")
    except TypeError:
        return
    raise AssertionError("a mistake must not pass for a set that is too small")
