"""Check characters by their definitions: ISO/IEC 7812-1, annex B, and ISO 7064, MOD 11-2."""


def luhn_sum(digits: str) -> int:
    """The sum that is 0 mod 10 for a valid number.

    From the right, beginning with the second, every other digit is doubled; of a product with two
    digits both are added.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        while value:
            total += value % 10
            value //= 10
    return total


def mod_11_2(digits: str) -> str:
    """The check character, by the recursion of ISO 7064, sec. 6: P = 2 (P + a) mod 11 over the
    digits a; the check character c makes P + c = 1 mod 11, with X for 10."""
    p = 0
    for digit in digits:
        p = 2 * (p + int(digit)) % 11
    check = (1 - p) % 11
    return "X" if check == 10 else str(check)
