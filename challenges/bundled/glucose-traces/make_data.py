"""Makes data.parquet and sample.parquet: virtual persons who wore a glucose sensor on two days, some weeks apart.

    python make_data.py

Nobody in it exists. Each person is a set of parameters of the minimal model of glucose and insulin (Bergman et al., Am
J Physiol 1979) with insulin secretion after Breda et al. (Diabetes 2001), the gut after Hovorka et al. (Physiol Meas
2004), and habits: when and how much he or she eats. Parameters and habits last, so that two days of one person resemble
each other; appetite, sleep, insulin sensitivity and the sensor change from day to day. (The package simglucose knows 30
patients, too few for a game of linkage.)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

PERSONS, SEED = 1200, 20260302
SAMPLE_PERSONS, SAMPLE_SEED = 240, 7
DAY = 24 * 60
WARM_UP = 4 * 60  # minutes before midnight, so that a day does not begin in equilibrium
STEP = 15  # minutes that one value of a recording is the mean of
IMPAIRED = (
    140.0  # mg/dl two hours after 75 g of glucose; American Diabetes Association, Standards of Care 2024, table 2.2
)
SENSOR_RANGE = (40, 400)  # mg/dl that such sensors can show
BREAKFAST, LUNCH, SNACK, DINNER = range(4)


@dataclass(frozen=True)
class Persons:
    """What stays the same from day to day; arrays [persons], meals [persons, 4]."""

    weight: np.ndarray  # kg
    basal: np.ndarray  # fasting glucose, mg/dl
    effectiveness: np.ndarray  # S_G, glucose uptake without insulin, 1/min
    sensitivity: np.ndarray  # S_I, 1/min per uU/ml
    action: np.ndarray  # p2, how fast insulin acts, 1/min
    secretion: np.ndarray  # uU/ml/min for each mg/dl above the threshold
    delay: np.ndarray  # of secretion, min
    burst: np.ndarray  # uU/ml of secretion for each mg/dl that glucose rises
    absorption: np.ndarray  # minutes from a meal to its greatest appearance in the blood
    dawn: np.ndarray  # amplitude of the daily rhythm, mg/dl
    dawn_at: np.ndarray  # its peak, minutes after midnight
    meal_at: np.ndarray  # usual times, minutes after midnight
    carbohydrates: np.ndarray  # usual amounts, g

    def __len__(self) -> int:
        return len(self.weight)


def people(count: int, random: np.random.Generator) -> Persons:
    """Persons whose parameters scatter about as in the cited papers."""

    def around(median: float, spread: float) -> np.ndarray:
        return median * np.exp(spread * random.standard_normal(count))

    sensitivity = around(4e-4, 0.5)
    # The less sensitive somebody is, the more insulin they make: their product varies less than either.
    secretion = around(0.075, 0.5) * (4e-4 / sensitivity) ** 0.7
    basal = 92 + 7 * random.standard_normal(count) + 9 * np.clip(np.log(4e-4 * 0.075 / (sensitivity * secretion)), 0, 2)
    times = np.array([7.5, 12.7, 16.0, 19.0]) * 60 + random.standard_normal((count, 4)) * [50, 40, 60, 50]
    amounts = np.array([48, 65, 22, 70]) * np.exp(random.standard_normal((count, 4)) * [0.4, 0.3, 0.6, 0.3])
    amounts[:, SNACK] *= random.random(count) < 0.6  # the others never have one
    return Persons(
        weight=around(76, 0.18),
        basal=basal,
        effectiveness=around(0.02, 0.25),
        sensitivity=sensitivity,
        action=around(0.025, 0.25),
        secretion=secretion,
        delay=around(12, 0.3),
        burst=around(0.5, 0.5),
        absorption=around(42, 0.25),
        dawn=np.abs(7 + 4 * random.standard_normal(count)),
        dawn_at=(6.5 + 1.2 * random.standard_normal(count)) * 60,
        meal_at=times,
        carbohydrates=amounts,
    )


def day(persons: Persons, random: np.random.Generator) -> np.ndarray:
    """One day's recording [persons, 96] in whole mg/dl, each value the mean of 15 minutes."""
    count = len(persons)
    sensitive = persons.sensitivity * np.exp(0.12 * random.standard_normal(count))
    late = 15 * random.standard_normal((count, 1))  # somebody who gets up late eats late
    eaten_at = persons.meal_at + late + random.standard_normal((count, 4)) * 12
    eaten = persons.carbohydrates * np.exp(random.standard_normal((count, 4)) * 0.25)
    eaten[:, SNACK] *= random.random(count) < 0.8
    fasting = persons.basal + 2.5 * random.standard_normal(count)
    minutes = np.arange(-WARM_UP, DAY)
    appearing = sum(
        appearance(minutes[:, None] - eaten_at[:, meal], eaten[:, meal], persons.absorption) for meal in range(4)
    )
    rhythm = persons.dawn * np.cos(2 * np.pi * (minutes[:, None] - persons.dawn_at) / DAY)
    glucose = simulate(persons, sensitive, fasting, appearing, rhythm)
    return sensed(glucose, random)[WARM_UP:].reshape(DAY // STEP, STEP, count).mean(axis=1).T.round().astype(int)


def appearance(since: np.ndarray, grams: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """mg of glucose that enter the blood each minute, `since` minutes after a meal (Hovorka et al. 2004, eq. 5)."""
    running = np.clip(since, 0, None)
    return 0.8 * 1000 * grams * running * np.exp(-running / peak) / peak**2


def simulate(
    persons: Persons, sensitivity: np.ndarray, fasting: np.ndarray, appearing: np.ndarray, rhythm: np.ndarray
) -> np.ndarray:
    """Blood glucose [minutes, persons] in mg/dl by Euler's method, a minute a step, from fasting on."""
    volume = 1.6 * persons.weight  # dl in which glucose spreads
    clearance = 0.13  # of insulin, 1/min
    glucose, remote, extra, provision = fasting.copy(), np.zeros(len(persons)), np.zeros(len(persons)), 0.0
    course = np.empty_like(appearing)
    for minute, (entering, wave) in enumerate(zip(appearing, rhythm, strict=True)):
        aim = fasting + wave
        change = persons.effectiveness * (aim - glucose) - remote * glucose + entering / volume
        secreted = provision + persons.burst * np.clip(change, 0, None) * clearance
        provision += (persons.secretion * np.clip(glucose - fasting, 0, None) - provision) / persons.delay
        remote += persons.action * (sensitivity * extra - remote)
        extra += secreted - clearance * extra  # insulin above its fasting level, uU/ml
        glucose = np.clip(glucose + change, 35, 500)
        course[minute] = glucose
    return course


def sensed(glucose: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What a sensor under the skin shows: late, slightly off all day, and noisy with a memory.

    A lag of 8 minutes and autoregressive noise as in Breton and Kovatchev, J Diabetes Sci Technol 2008.
    """
    minutes, count = glucose.shape
    tissue, noise = glucose[0].copy(), np.zeros(count)
    gain = 1 + 0.03 * random.standard_normal(count)
    shown = np.empty_like(glucose)
    for minute in range(minutes):
        tissue += (glucose[minute] - tissue) / 8
        noise = 0.95 * noise + 1.6 * random.standard_normal(count)
        shown[minute] = gain * tissue + noise
    return np.clip(shown, *SENSOR_RANGE)


def tolerance_test(persons: Persons) -> np.ndarray:
    """Glucose two hours after 75 g of it were drunk, in mg/dl: what a laboratory finds, without sensor or habits."""
    minutes = np.arange(121)[:, None]
    drunk = appearance(minutes - 0.0, np.full(len(persons), 75.0), 0.8 * persons.absorption)
    return simulate(persons, persons.sensitivity, persons.basal, drunk, np.zeros(drunk.shape))[-1]


def table(count: int, seed: int) -> pd.DataFrame:
    """One row per person: the earlier day, the later day, and whether glucose tolerance is impaired."""
    random = np.random.default_rng(seed)
    persons = people(count, random)
    times = [f"{minute // 60:02}{minute % 60:02}" for minute in range(0, DAY, STEP)]
    days = {name: day(persons, random) for name in ("earlier", "later")}
    columns = {f"{name}_{time}": values[:, at] for name, values in days.items() for at, time in enumerate(times)}
    impaired = np.where(tolerance_test(persons) >= IMPAIRED, "yes", "no")
    return pd.DataFrame({**columns, "impaired": impaired})


def write(frame: pd.DataFrame, name: str) -> None:
    """Small: of numbers below 512 nearly all upper bytes are 0, and this encoding lays them side by side."""
    fields = [(column, pa.string() if column == "impaired" else pa.int32()) for column in frame]
    numbers = [column for column in frame if column != "impaired"]
    pq.write_table(
        pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False).replace_schema_metadata(None),
        Path(__file__).with_name(name),
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
        write_statistics=False,
        column_encoding=dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
    )


def main() -> None:
    private = table(PERSONS, SEED)
    sample = table(SAMPLE_PERSONS, SAMPLE_SEED)
    numbers = private.columns[:-1]
    sample[numbers] = sample[numbers].clip(private[numbers].min(), private[numbers].max(), axis=1)
    write(private, "data.parquet")
    write(sample, "sample.parquet")


if __name__ == "__main__":
    main()
