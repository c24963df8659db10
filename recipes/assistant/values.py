"""Numbers, times and lengths of time: what people say, and the one form in which a call carries it."""

import random

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
PERCENT_NAMES = {0: ("zero",), 25: ("a quarter",), 50: ("half", "halfway", "fifty fifty"), 75: ("three quarters",),
                 100: ("full", "maximum", "max", "the maximum", "a hundred percent")}  # fmt: skip


def spell(number: int) -> str:
    """The English words for 0 to 100."""
    if number < 20:
        return ONES[number]
    if number == 100:
        return "one hundred"
    tens = TENS[number // 10 - 2]
    return f"{tens} {ONES[number % 10]}" if number % 10 else tens


def number(rng: random.Random, value: int) -> str:
    """The number in digits or in words."""
    return str(value) if rng.random() < 0.5 else spell(value)


def percent(rng: random.Random) -> tuple[str, int]:
    """A share from 0 to 100 percent, as said and as an integer."""
    value = rng.choice((rng.randint(0, 100), rng.randint(0, 100), rng.randrange(0, 101, 10), rng.randrange(0, 101, 5)))
    if value in PERCENT_NAMES and rng.random() < 0.25:
        return rng.choice(PERCENT_NAMES[value]), value
    said = number(rng, value)
    unit = ("%", "%", " percent", " percent", " per cent") if said.isdigit() else (" percent", " percent", " per cent")
    return said + (rng.choice(unit) if rng.random() < 0.85 else ""), value


def over_percent(rng: random.Random) -> str:
    """A share beyond 100 percent, which no device has."""
    value = rng.choice((rng.randint(101, 999), rng.randrange(110, 600, 10), rng.randrange(200, 1000, 100)))
    spelled = f"{spell(value // 100)} hundred" if value % 100 == 0 and rng.random() < 0.5 else str(value)
    return spelled + rng.choice((" percent", " per cent", "%" if spelled.isdigit() else " percent"))


def degrees(rng: random.Random) -> tuple[str, int]:
    """A room temperature, Celsius or Fahrenheit as the user thinks of it, as said and as an integer."""
    value = rng.randint(5, 35) if rng.random() < 0.65 else rng.randint(36, 90)
    unit = "celsius" if value < 36 else "fahrenheit"
    endings = (" degrees", " degrees", " degrees", "", f" degrees {unit}", f" {unit}", "°", f" {unit[0]}", " deg")
    said = number(rng, value)
    return said + rng.choice(endings if said.isdigit() else endings[:6]), value


def duration(rng: random.Random, *, before_noun: bool = False) -> tuple[str, str]:
    """A length of time, as said and as '1 hour 30 minutes'; `before_noun` is the form of 'a 5 minute timer'."""
    unit = rng.choice(("minute", "minute", "minute", "second", "hour"))
    value = rng.randint(1, 12) if unit == "hour" else rng.choice((rng.randint(1, 99), rng.randrange(5, 61, 5)))
    canonical = f"{value} {unit}{'' if value == 1 else 's'}"
    said = number(rng, value)
    if before_noun:
        if rng.random() < 0.06:
            return rng.choice(("half hour", "half an hour")), "30 minutes"
        return f"{said}{rng.choice((' ', ' ', '-'))}{unit}", canonical
    text = f"{said} {unit}{'' if value == 1 else 's'}"
    chance = rng.random()
    if value == 1 and chance < 0.5:
        return f"{'an' if unit == 'hour' else 'a'} {unit}", canonical
    if chance < 0.05:
        return rng.choice(("half an hour", "half an hour", "half hour")), "30 minutes"
    if chance < 0.08:
        return rng.choice(("a quarter of an hour", "a quarter hour")), "15 minutes"
    if chance < 0.12:
        hours = rng.randint(1, 5)
        said = "an hour" if hours == 1 else f"{number(rng, hours)} hours"
        return f"{said} and a half", f"{hours} hour{'s' if hours > 1 else ''} 30 minutes"
    if chance < 0.28 and unit != "second":
        smaller, extra = ("minute" if unit == "hour" else "second"), rng.randint(2, 59)
        extra_said = str(extra) if said.isdigit() else spell(extra)
        return f"{text}{rng.choice((' and ', ' '))}{extra_said} {smaller}s", f"{canonical} {extra} {smaller}s"
    if said.isdigit() and chance > 0.93:
        text = f"{said} {({'minute': 'min', 'second': 'sec', 'hour': 'h'})[unit]}"
    return text, canonical


def clock_words(rng: random.Random, hour: int, minute: int) -> str:
    """A time on a dial of twelve hours in words or digits, without its half of the day."""
    spelled = number(rng, hour)
    if minute == 30 and rng.random() < 0.4:
        return f"half past {spelled}"
    if minute == 15 and rng.random() < 0.4:
        return f"quarter past {spelled}"
    if minute == 45 and rng.random() < 0.4:
        return f"quarter to {number(rng, hour % 12 + 1)}"
    if spelled.isdigit():
        return f"{hour}:{minute:02d}" if minute or rng.random() < 0.3 else str(hour)
    if not minute:
        return spelled
    return f"{spelled} {'oh ' if minute < 10 else ''}{spell(minute)}"


def clock(rng: random.Random) -> tuple[str, str]:
    """A time of day, as said and as HH:MM of 24 hours; without am or pm it is taken as it stands."""
    if rng.random() < 0.05:
        return rng.choice((("noon", "12:00"), ("midnight", "00:00")))
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 0, 15, 30, 45, rng.randint(1, 59)))
    said = clock_words(rng, hour, minute)
    half = rng.choice(("am", "pm", "", ""))
    if not half:
        if rng.random() < 0.1:
            late = rng.randint(13, 23)
            return f"{late}:{minute:02d}", f"{late}:{minute:02d}"
        if not minute and ":" not in said and rng.random() < 0.5:
            said += " o'clock"
        return said, f"{hour:02d}:{minute:02d}"
    morning = "in the morning"
    evening = "in the afternoon" if hour in (12, 1, 2, 3, 4) else "in the evening"
    spoken = (f" {half}", f" {half}", f" {half[0]}.m.", f" {morning if half == 'am' else evening}")
    if said[-1].isdigit():
        spoken += (half,)
    return said + rng.choice(spoken), f"{hour % 12 + 12 * (half == 'pm'):02d}:{minute:02d}"
