"""The demo's job: a data file made from a fixed seed, a shell script that analyses it, and a second,
independent computation of the same result in Python that the script's answer is held against.

The file holds power and temperature readings of eight graphics cards. The script needs nothing but a
POSIX shell, awk and sort, and only whole numbers, so every machine gets the same bytes.
"""

from __future__ import annotations

import random
from pathlib import Path
from statistics import median_low
from typing import Final

CARDS: Final = 8
READINGS_PER_CARD: Final = 25_000
SEED: Final = 20_250_401
HOT_MILLICELSIUS: Final = 80_000
DATA_NAME: Final = "readings.csv"
RESULT_NAME: Final = "result.csv"
RESULT_HEADER: Final = "card,readings,min_mw,median_mw,p95_mw,max_mw,mean_mw,hot_readings"
JOB_SECONDS: Final = 300
"""Rented at most; what is not used comes back."""

SCRIPT: Final = rf"""
export LC_ALL=C
echo "analysing $(awk 'END {{ printf "%.0f", NR - 1 }}' {DATA_NAME}) readings of {CARDS} cards"
echo "{RESULT_HEADER}" > {RESULT_NAME}
for card in $(awk -F, 'NR > 1 && !seen[$1]++ {{ print $1 }}' {DATA_NAME} | sort); do
  awk -F, -v card="$card" '$1 == card {{ print $3, $4 }}' {DATA_NAME} | sort -n > part.txt
  awk -v card="$card" '
    {{ power[NR] = $1; sum += $1; if ($2 > {HOT_MILLICELSIUS}) hot++ }}
    END {{
      p95 = int((NR * 95 + 99) / 100)
      printf "%s,%.0f,%.0f,%.0f,", card, NR, power[1], power[int((NR + 1) / 2)]
      printf "%.0f,%.0f,%.0f,%.0f\n", power[p95], power[NR], int(sum / NR), hot
    }}' part.txt >> {RESULT_NAME}
  tail -n 1 {RESULT_NAME} | awk -F, '
    {{ printf "%s: median %.0f W, peak %.0f W\n", $1, $4 / 1000, $6 / 1000 }}'
  sleep 1
done
rm part.txt
echo "wrote {RESULT_NAME}"
"""
"""One card a second, so that there is a meter to watch on a fast machine too."""


def write_data(path: Path) -> None:
    """The same few megabytes of CSV every time: `card,second,milliwatts,millicelsius`."""
    chance = random.Random(SEED)
    with path.open("w", newline="\n") as file:
        file.write("card,second,milliwatts,millicelsius\n")
        for second in range(READINGS_PER_CARD):
            for card in range(CARDS):
                load = chance.random()
                milliwatts = 35_000 + card * 4_000 + int(load * load * 380_000)
                millicelsius = 31_000 + milliwatts // 8 + chance.randrange(6_000)
                file.write(f"gpu-{card},{second},{milliwatts},{millicelsius}\n")


def expected_result(path: Path) -> bytes:
    """What the job must leave in its result file, computed here."""
    power: dict[str, list[int]] = {}
    hot: dict[str, int] = {}
    with path.open() as file:
        next(file)
        for line in file:
            card, _, milliwatts, millicelsius = line.split(",")
            power.setdefault(card, []).append(int(milliwatts))
            hot[card] = hot.get(card, 0) + (int(millicelsius) > HOT_MILLICELSIUS)
    lines = [RESULT_HEADER]
    lines += [_row(card, sorted(values), hot[card]) for card, values in sorted(power.items())]
    return ("\n".join(lines) + "\n").encode()


def _row(card: str, values: list[int], hot: int) -> str:
    p95 = values[-(-len(values) * 95 // 100) - 1]
    mean = sum(values) // len(values)
    figures = (len(values), values[0], median_low(values), p95, values[-1], mean, hot)
    return ",".join([card, *map(str, figures)])


def job_file(image: str) -> str:
    """The job as a person would write it."""
    run = SCRIPT.strip("\n").replace("\n", "\n  ")
    return f"""name: gpu-readings
resources:
  image: {image}
  cpus: 1
  memory: 256MB
  disk: 256MB
file_mounts:
  /workspace/{DATA_NAME}: ./{DATA_NAME}
outputs: [{RESULT_NAME}]
max_hours: {JOB_SECONDS / 3_600:.6f}
run: |
  {run}
"""
