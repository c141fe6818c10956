"""pipeline.toml that cannot work: named by its key, and refused before anything is read or written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from bad_input.corpus import Case
from deployment import Deployment


def _edit(old: str, new: str, *words: str, command: str = Case.command) -> Case:
    return Case(words, command, edit=(old, new))


def _set(table: str, line: str, *words: str, command: str = Case.command) -> Case:
    """A line more in a table that the small deployment has, or in a new one."""
    return Case(words or (line.split(" =")[0],), command, lines={table: line})


PLAN_SQL = 'performance_daily = "performance_daily.sql"\nknown_future = "performance_daily.sql"'


def _plan(lines: str, *words: str) -> Case:
    return _edit("[history]", f"[[known_future]]\n{lines}\n[history]", *words)


NAMES = {
    "unknown key": _edit("buckets = 2", "bucket = 2", '[dataset]: unknown key "bucket"; did you mean "buckets"?'),
    "unknown table": _edit("[history]", "[histroy]", 'unknown key "histroy"; did you mean "history"?'),
    "a key far from all": _set("gate", "colour = 3", '[gate]: unknown key "colour"', "approval_hours"),
    "a key with a line break": _set("gate", '"a\\nb" = 3', '[gate]: unknown key "a\\nb"'),
    "a missing key": _edit("first_day = 2024-01-01", "", '[dataset]: missing key "first_day"'),
    "a missing table": _edit("[staging]", "[mlflow]", 'missing key "staging"'),
    "no table of the data set": _edit("[dataset]", "[datasets]", 'unknown key "datasets"; did you mean "dataset"?'),
    "a key that moved": _set("backtest", "eligible_days = 28", '"eligible_days" is now [dataset] eligible_days'),
    "a metric twice": _edit('name = "taps"', 'name = "views"', '"views" is declared twice'),
    "a metric in another case": _edit('name = "taps"', 'name = "Views"', 'differs from "views" in case alone'),
    "a metric named as our column": _edit('name = "taps"', 'name = "day"', '"day" is a column of the system\'s own'),
    "the same in capitals": _edit('name = "taps"', 'name = "Bucket"', '"Bucket" is a column of the system\'s own'),
    "a metric named active": _edit('name = "taps"', 'name = "active"', '"active" is what tasks call a day'),
    "a metric with blanks": _edit('name = "taps"', 'name = "taps per day"', "taps per day", "letters, digits"),
    "a metric with our prefix": _edit('name = "taps"', 'name = "_place"', "_place", "a letter first"),
    "a metric in Chinese": _edit('name = "taps"', 'name = "点击"', "点击", "letters, digits"),
    "an empty metric": _edit('name = "taps"', 'name = ""', "[[performance]]", "name = ''", "letters, digits"),
    "a task twice": _edit('name = "active_days"', 'name = "spend"', "[[task]] spend", "declared twice"),
    "a task of 65 characters": _edit('name = "active_days"', f'name = "{"t" * 65}"', "[[task]]", "at most 64"),
    "an attribute as a metric": Case(
        ("[attributes] advertiser views", "declared twice"),
        lines={"attributes": 'advertiser = ["views"]', "staging": 'advertiser = "performance_daily.sql"'},
    ),
    "a source named as our view": _edit('name = "raw_day"', 'name = "dataset_scenario"', "dataset_", "SQL returns"),
    "sources in another case": _edit(
        "[staging]",
        '[[source]]\nname = "RAW_day"\nformat = "csv"\npath = "x"\ncolumns = { a = "string" }\n[staging]',
        "[[source]] RAW_day",
        "in case alone",
    ),
    "a data set named airflow": _edit('name = "tiny"', 'name = "airflow"', "[dataset]", "airflow", "M2M_HOME"),
    "a data set named MLartifacts": _edit('name = "tiny"', 'name = "MLartifacts"', "MLartifacts", "M2M_HOME"),
    "a data set of 300 characters": _edit('name = "tiny"', f'name = "{"d" * 300}"', "[dataset] name", "at most 64"),
    "a data set out of its folder": _edit('name = "tiny"', 'name = "../other"', "[dataset] name", "letters, digits"),
    "a data set with a line break": _edit('name = "tiny"', 'name = "a\\nb"', "[dataset] name", "letters, digits"),
}

TYPES = {
    "a text for a number": _edit(
        "buckets = 2", 'buckets = "2"', "[dataset] buckets: expected a whole number, found '2'"
    ),
    "true for a number": _edit(
        "buckets = 2", "buckets = true", "[dataset] buckets: expected a whole number, found True"
    ),
    "a fraction for a number": _edit("buckets = 2", "buckets = 2.0", "[dataset] buckets: expected a whole number"),
    "a number of 5000 digits": _edit("buckets = 2", f"buckets = {'9' * 5000}", "integer"),
    "a number of 100 digits": _edit("buckets = 2", f"buckets = {'9' * 100}", "[dataset] buckets", "64 bits"),
    "a text for a list": _edit('[["taps", "views"]]', '"taps"', "[checks] not_above: expected a list, found 'taps'"),
    "a list for a table": _edit('master = "local[2]"', "conf = [1, 2]", "[spark] conf: expected a table, found a list"),
    "a number for true": _set("distributor", "local = 1", "[distributor] local: expected true or false, found 1"),
    "a text for a day": _edit("= 2024-01-01", '= "2024-01-01"', "first_day: expected a day", "without quotes"),
    "a time for a day": _edit("= 2024-01-01", "= 2024-01-01T05:00:00", "first_day: expected a day"),
    "a table for a text": _edit('kind = "money"', "kind = { a = 1 }", "[[performance]] spend kind", "found a table"),
    "a pair of three": _edit('[["taps", "views"]]', '[["taps", "views", "spend"]]', "not_above 1: expected 2 values"),
    "no list of sources": _edit("[[source]]", "[source]", "[source]: expected a list, found a table"),
    "an unknown kind": _edit('kind = "money"', 'kind = "euros"', "[[performance]] spend kind = 'euros'", "money"),
    "a kind with a typo": _edit('kind = "money"', 'kind = "mony"', "kind = 'mony'", 'did you mean "money"?'),
    "an unknown format": _edit('format = "parquet"', 'format = "xlsx"', "[[source]] raw_day format = 'xlsx'"),
    "an unknown loss": _set("model", 'loss = "histogramm"', "[model] loss", "one of histogram, lognormal, negative"),
    "a decimal of 99 digits": _edit('views = "double"', 'views = "decimal(99,2)"', "columns views", "decimal(18,2)"),
    "a type that is not closed": _edit('views = "double"', 'views = "array<string"', "columns views", "array<string>"),
    "an empty type": _edit('views = "double"', 'views = ""', "columns views", "is no Spark type"),
    "an unknown type of a column": _edit(
        'views = "double"', 'views = "duoble"', "columns views", '"duoble"', '"double"'
    ),
}

NUMBERS = {
    f"{table} {key} = {value}": _set(table, f"{key} = {value}", f"[{table}] {key}", "must be from")
    for table, keys in {
        "dataset": {
            "horizon_days": (0, -7, 10**10),
            "buckets": (0, 99_999_999_999),
            "late_days": (-1, 10**6),
            "mature_days": (-1, 10**6),
            "eligible_days": (0, 10**9),
            "first_day": ("0001-01-01", "9999-12-31"),
        },
        "history": {"window_days": (0, -1, 10**6), "keep_days": (0, 10**9)},
        "checks": {
            "volume_min_ratio": (7.0, -0.1, "nan", "inf"),
            "id_max_length": (-1, 0, 10**9),
            "attribute_max_length": (0, 40_000_000),
        },
        "model": {
            "width": (0, 10**8),
            "heads": (0, 1000),
            "layers": (0, 1000),
            "experts": (0, 10**6),
            "meta_depth": (0, 100),
            "meta_rank": (-1, 10**6),
            "patch_days": (0, 10**6),
            "bins": (0, 10**6),
            "ratio_bins": (0, 10**9),
            "dropout": (1.0, -0.1, "nan"),
            "scenario_dropout": (1.5,),
        },
        "training": {
            "epochs": (0, 10**9),
            "max_windows": (0, 10**12),
            "min_steps": (-1, 10**12),
            "batch_size": (0, 10**12),
            "learning_rate": (0.0, -1.0, "inf", "nan", 1e300),
            "weight_decay": (-1.0, "nan", "inf"),
            "gradient_clip": (0.0, "nan", "-inf"),
            "seed": (-1, 2**62),
            "validation_cutoffs": (0, 10**6),
            "validation_windows": (0,),
            "min_history_days": (0, 10**6),
            "patience": (0,),
            "checkpoint_every_steps": (0,),
        },
        "distributor": {"processes": (0, 10**6), "threads": (-3, 10**6), "attempts": (0, 10**9)},
        "backtest": {"cutoffs": (0, 10**6), "every_days": (0, 10**6)},
        "gate": {
            "max_ratio_to_champion": (-1.0, 0.0, "nan", "inf"),
            "max_ratio_to_baseline": ("nan", 1e300),
        },
        "maintenance": {"keep_snapshots_days": (0, 10**9), "keep_files_hours": (0, -1, 10**9)},
    }.items()
    for key, values in keys.items()
    for value in values
}

TOGETHER = {
    "one horizon and several": _set(
        "dataset", "horizon_days = 7\nhorizons_days = [7, 14]", "horizon_days and horizons_days", "one of the two"
    ),
    "no horizon": _set("dataset", "horizons_days = []", "[dataset] horizons_days", "from 1 to 12 entries, found 0"),
    "a horizon twice": _set("dataset", "horizons_days = [7, 7]", "horizons_days = [7, 7]: 7 after 7", "above the one"),
    "horizons out of order": _set("dataset", "horizons_days = [14, 7]", "7 after 14; expected each to be above"),
    "a horizon of no day": _set("dataset", "horizons_days = [0, 7]", "[dataset] horizons_days 1 = 0", "must be from"),
    "a horizon as a text": _set("dataset", 'horizons_days = ["7"]', "[dataset] horizons_days 1", "a whole number"),
    "horizons that are no list": _set("dataset", "horizons_days = 7", "[dataset] horizons_days", "expected a list"),
    "a horizon longer than the history": _set(
        "dataset", "horizons_days = [7, 60]", "horizon_days + mature_days", "keep_days = 60"
    ),
    "keeps less than the window": _edit("keep_days = 60", "keep_days = 7", "keep_days = 7: must not be below window"),
    "eligible longer than the history": _set("dataset", "eligible_days = 100", "eligible_days = 100", "keep_days = 60"),
    "a patch longer than the window": _set("model", "patch_days = 30", "patch_days = 30", "window_days = 14"),
    "cutoffs beyond the history": _set(
        "backtest", "cutoffs = 30", "every_days x (cutoffs - 1) = 210", "keep_days = 60"
    ),
    "a longer start than the history": _set("training", "min_history_days = 61", "min_history_days = 61", "keep_days"),
    "heads that do not divide": _edit("heads = 2", "heads = 3", "[model]: width = 8 must be a multiple of heads = 3"),
    "a task on no metric": _edit('metric = "spend"', 'metric = "spent"', 'metric "spent" is not one of views, taps'),
    "a sum of active": _edit('metric = "spend"', 'metric = "active"', '"active" has no sum'),
    "a total of a ratio": _edit('kind = "money"', 'kind = "ratio"', "is a ratio; a total of ratios means nothing"),
    "a pair of no metric": _edit('"taps", "views"]]', '"taps", "looks"]]', '"looks" is not one of views, taps, spend'),
    "a pair of one metric": _edit('"taps", "views"]]', '"taps", "taps"]]', "[checks] not_above", "twice"),
    "a pair twice": _edit('[["taps", "views"]]', '[["taps", "views"], ["taps", "views"]]', "not_above", "twice"),
    "an unknown check": _set(
        "checks", 'severity = { volumes = "warning" }', '[checks] severity: unknown key "volumes"', '"volume"?'
    ),
    "an unknown severity": _set("checks", 'severity = { volume = "warn" }', "severity volume = 'warn'", '"warning"?'),
    "no source": Case(
        ("source", "from 1 to 50"),
        files={
            "pipeline.toml": "source = []\nperformance = []\ntask = []\n"
            '[dataset]\nname = "a"\nfirst_day = 2024-01-01\n[staging]\nperformance_daily = "performance_daily.sql"'
        },
    ),
    "no columns": _edit("columns = { day", "options = { day", "[[source]] raw_day", "columns are missing"),
    "no path": _edit('path = "raw/ds={ds}.parquet"', "", '[[source]] raw_day: missing key "path"'),
    "a path with a null": _edit("raw/ds={ds}.parquet", "raw\\u0000", "[[source]] raw_day path", "control"),
    "jdbc without a table": _edit('format = "parquet"', 'format = "jdbc"', "[[source]] raw_day", "url", "dbtable"),
    "columns in another case": _edit(
        'views = "double"', 'WHO = "string"', "raw_day", '"WHO" differs from "who" in case'
    ),
    "a column without a name": _edit("views =", '"" =', "columns", "1 to 256 characters"),
    "a column with a line break": _edit("views =", '"a\\nb" =', "columns", '"a\\nb"', "control"),
    "a column named as Spark's own": _edit("views =", "_Metadata =", "columns", '"_Metadata"', "the system's own"),
    "a column named as the row that is none": _edit("views =", "__malformed =", "columns", "__malformed"),
    "an option twice": _edit(
        "columns = { day", 'options = { sep = ",", SEP = ";" }\ncolumns = { day', "options", "twice"
    ),
    "damaged files passed over": _edit(
        "columns = { day", 'options = { ignoreCorruptFiles = "true" }\ncolumns = { day', "ignorecorruptfiles", "stops"
    ),
    "lost files passed over": _set("spark.conf", '"spark.sql.files.ignoreMissingFiles" = "true"', "missing", "stops"),
    "old files passed over": _edit(
        "columns = { day", 'options = { modifiedAfter = "2024-01-01" }\ncolumns = { day', "modifiedafter", "path says"
    ),
    "a SQL file of 900 characters": _edit('"performance_daily.sql"', f'"{"x" * 900}"', "[staging]", "no such file"),
    "a SQL file that is gone": _edit('"performance_daily.sql"', '"gone.sql"', "performance_daily: gone.sql: no such"),
    "a folder for a SQL file": _edit('"performance_daily.sql"', '"."', "[staging] performance_daily", "no such file"),
    "a null in a SQL file's name": _edit('"performance_daily.sql"', '"a\\u0000"', "[staging] performance_daily"),
    "a plan without SQL": _plan(
        'name = "budget"', "[[known_future]] budget needs [staging] known_future, or a country"
    ),
    "SQL without a plan": _set("staging", 'known_future = "performance_daily.sql"', "at least one [[known_future]]"),
    "a plan of nothing": _plan('name = "budget"\nof = "cost"', '[[known_future]] budget: of = "cost"', "views, taps"),
    "a plan that is a metric": _plan('name = "spend"', '[[known_future]] spend: "spend" is declared twice'),
    "a plan whose column is a metric": Case(
        ('[[known_future]] budget: "budget_next_7" is its column in sequences',),
        edit=('"taps"\nkind', '"budget_next_7"\nkind = "count"\n[[performance]]\nname = "taps"\nkind'),
        lines={"staging": f'{PLAN_SQL}\n[[known_future]]\nname = "budget"'},
    ),
    "a plan named as our column": _plan('name = "day"', '[[known_future]] day: "day" is a column of the system\'s own'),
    "holidays of two": _plan(
        'name = "h"\ncountry = "GB"\ncountry_attribute = "a"', "[[known_future]] h", "one of them"
    ),
    "holidays of a metric": _plan(
        'name = "h"\ncountry = "GB"\nof = "views"', "[[known_future]] h: holidays are counted"
    ),
    "holidays of no code": _plan('name = "h"\ncountry = "England"', "country", "ISO 3166, such as GB or DE-BY"),
    "holidays of no attribute": _plan(
        'name = "h"\ncountry_attribute = "land"', 'country_attribute = "land" is not one of [attributes]'
    ),
    "behavior without SQL": _edit("[history]", '[[behavior]]\nname = "logins"\n[history]', "needs [staging] behavior"),
    "SQL without behavior": _set("staging", 'behavior_daily = "performance_daily.sql"', "at least one [[behavior]]"),
    "attributes without SQL": _set("attributes", 'scenario = ["format"]', "[attributes] scenario needs [staging]"),
    "a unit with a line break": _edit('unit = "eur"', 'unit = "e\\nur"', "[[performance]] spend unit", "control"),
}

TABLES = {
    "mlflow with a typo": _set("mlflow", 'tracking_url = "http://m"', 'unknown key "tracking_url"', '"tracking_uri"?'),
    "mlflow on no address": _set("mlflow", 'tracking_uri = "mlruns"', "[mlflow]: tracking_uri", "http"),
    "mlflow on a file store": _set("mlflow", 'tracking_uri = "file:///x"', "[mlflow]: tracking_uri", "sqlite"),
    "mlflow where one happens to be": _set("mlflow", 'tracking_uri = "sqlite:///m.db"', "tracking_uri", "absolute"),
    "warehouse with a typo": _set("warehouse", 'urii = "http://c"', '[warehouse]: unknown key "urii"', '"uri"?'),
    "s3 with a typo": _set("warehouse", '"s3.endpont" = "http://s"', 'unknown key "s3.endpont"', '"s3.endpoint"?'),
    "s3 without quotes": _set("warehouse", 's3.endpoint = "http://s"', "[warehouse] s3", "found a table", "in quotes"),
    "spark without quotes": _set("spark.conf", 'spark.driver.memory = "8g"', "[spark] conf spark", "in quotes"),
    "an unknown catalog": _set("warehouse", 'type = "nessie"', '[warehouse]: type = "nessie"', "rest"),
    "a catalog in memory": _set("warehouse", 'type = "in-memory"', '[warehouse]: type = "in-memory"'),
    "a catalog in capitals": _set("warehouse", 'type = "REST"', '[warehouse]: type = "REST"'),
    "a catalog at no address": _set("warehouse", 'uri = "my catalog"', "[warehouse]: uri", "give a type"),
    "rest at a database": _set("warehouse", 'type = "rest"\nuri = "sqlite:////x"', "[warehouse]: uri", "http:"),
    "sql at a service": _set("warehouse", 'type = "sql"\nuri = "http://x"', "[warehouse]: uri", "sqlite:"),
    "rest without an address": _set("warehouse", 'type = "rest"', '[warehouse]: missing key "uri"'),
    "a catalog where one happens to be": _set("warehouse", 'uri = "sqlite:///c.db"', "[warehouse]: uri", "absolute"),
    "a namespace that no catalog takes": _set(
        "warehouse", 'namespace_prefix = "ads team."', "[warehouse]: namespace_prefix", "letters, digits"
    ),
    "a relative warehouse": _set("warehouse", 'warehouse = "tables"', "[warehouse]: warehouse", "absolute path"),
    "two kinds of catalog": _set(
        "warehouse", 'type = "sql"\npy-catalog-impl = "a.B"', "[warehouse]: type and py-catalog-impl"
    ),
    "a number in the warehouse": _set("warehouse", '"s3.connect-timeout" = 5', "s3.connect-timeout: expected a text"),
    "spark without spark": _set("spark.conf", '"driver.memory" = "8g"', 'unknown key "driver.memory"', "spark."),
    "spark in another zone": _set("spark.conf", '"spark.sql.session.timeZone" = "Asia/Shanghai"', "timeZone", "UTC"),
    "spark not in ANSI": _set("spark.conf", '"spark.sql.ansi.enabled" = "false"', "ansi.enabled", "stops the run"),
    "spark's master twice": _set("spark.conf", '"spark.master" = "yarn"', "spark.master", "[spark] master"),
    "spark with a number": _set("spark.conf", '"spark.driver.cores" = 2', "spark.driver.cores: expected a text"),
    "an unknown master": _edit('"local[2]"', '"localhost"', "[spark]: master", "spark://host:port"),
    "a master of no threads": _edit('"local[2]"', '"local[0]"', "[spark]: master", "local[2]"),
    "a master without a port": _edit('"local[2]"', '"spark://host"', "[spark]: master", "spark://host:port"),
    "an empty master": _edit('"local[2]"', '""', "[spark]: master", "spark://host:port"),
}

SECRETS = {
    "a password as a number": _set("source.options", "password = 123456", "options password", "that is not shown"),
    "a password in the file": _set("source.options", 'password = "hunter2"', "options password", "${NAME}"),
    "a password in an address": _set(
        "warehouse", 'uri = "postgresql://ads:hunter2@db/ads"', "[warehouse] uri", "a secret may not stand in"
    ),
    "a password in a query": _set(
        "source.options",
        'url = "jdbc:postgresql://db/ads?user=ads&password=hunter2"',
        "options url",
        "a secret may not",
    ),
    "a token in the file": _set("warehouse", 'token = "hunter2"', "[warehouse] token", "a secret may not stand in"),
    "a key of s3 in the file": _set("warehouse", '"s3.secret-access-key" = "hunter2"', "secret-access-key", "${NAME}"),
    "a secret of Spark in the file": _set(
        "spark.conf", '"spark.hadoop.fs.s3a.secret.key" = "hunter2"', "fs.s3a.secret.key", "${NAME}"
    ),
    "a password in tracking": _set(
        "mlflow", 'tracking_uri = "https://me:hunter2@m"', "[mlflow] tracking_uri", "secret"
    ),
    "a key of Azure in the file": _set(
        "spark.conf", '"spark.hadoop.fs.azure.account.key.ads.dfs.core.windows.net" = "hunter2"', "${NAME}"
    ),
    "a client's secret of Azure": _set(
        "spark.conf", '"spark.hadoop.fs.azure.account.oauth2.client.secret.ads.dfs" = "hunter2"', "${NAME}"
    ),
    "a fixed token of Azure": _set("spark.conf", '"spark.hadoop.fs.azure.sas.fixed.token.ads" = "hunter2"', "${NAME}"),
    "a passphrase": _set("source.options", 'sslPassphrase = "hunter2"', "sslPassphrase", "${NAME}"),
    "a password in an address of Oracle": _set(
        "source.options", 'url = "jdbc:oracle:thin:scott/hunter2@db"', "options url", "a secret may not"
    ),
    "a signature in an address": _set("source.options", 'url = "https://h/x?sig=hunter2"', "url", "a secret may not"),
    "a token in an address": _set("warehouse", 'uri = "https://h/x?access_token=hunter2"', "uri", "a secret may not"),
    "a secret as a list": _set("warehouse", 'credential = ["hunter2"]', "[warehouse] credential", "found a list"),
    "a variable that is not set": _set(
        "warehouse", 'uri = "postgresql://ads:${ADS_DB_PW}@db/ads"', "[warehouse] uri", "ADS_DB_PW is not set"
    ),
    "a name that is not set": _edit('"tiny"', '"${ADS_NAME}"', "[dataset] name", "ADS_NAME is not set"),
    "a variable without a name": _edit('"local[2]"', '"${}"', "[spark] master", "${NAME}"),
    "a variable that is not closed": _edit('"local[2]"', '"${MASTER"', "[spark] master", "${NAME}"),
    "a variable with a dash": _edit('"local[2]"', '"${MY-MASTER}"', "[spark] master", "${NAME}"),
}

FILES = {
    "not TOML": _edit("[history]", "[history", "not TOML", "line"),
    "a key twice": _edit("buckets = 2", "buckets = 2\nbuckets = 3", "not TOML", "line"),
    "not UTF-8": Case(("not TOML", "utf-8"), files={"pipeline.toml": b"[dataset]\nname = '\xff\xfe'"}),
    "UTF-16": Case(("not TOML",), files={"pipeline.toml": '[dataset]\nname = "a"'.encode("utf-16")}),
    "empty": Case(("missing key",), files={"pipeline.toml": ""}),
    "a Parquet file": Case(("not TOML",), files={"pipeline.toml": b"PAR1\x00\x15\x04\x15\x10PAR1"}),
    "two megabytes": Case(("are no configuration",), files={"pipeline.toml": "# comment\n" * 200_000}),
    "deep lists": Case(("too deep",), files={"pipeline.toml": f"a = {'[' * 20_000}{']' * 20_000}"}),
    "deep keys": _set("warehouse", f"{'a.' * 5_000}b = 1", "[warehouse] a: expected a text, found a table"),
    "deep tables": Case(("too deep",), files={"pipeline.toml": f"a = {'{a = ' * 20_000}1{'}' * 20_000}"}),
}

CASES = NAMES | TYPES | NUMBERS | TOGETHER | TABLES | SECRETS | FILES


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_that_cannot_work_is_named(refuse: Callable[[Case], str], name: str) -> None:
    said = refuse(CASES[name])
    assert "pipeline.toml" in said or "is not set" in said
    assert "hunter2" not in said
    assert "123456" not in said


@pytest.mark.spark
def test_a_value_that_spark_does_not_take_is_named(deployment: Deployment) -> None:
    deployment.toml.write_text(deployment.toml.read_text() + '[spark.conf]\n"spark.sql.shuffle.partitions" = "many"\n')
    stage = ["pipelines.stage_sources", "--config", str(deployment.toml), "--date", "2024-01-02"]
    # A process of its own: the session of the tests is running.
    done = subprocess.run([sys.executable, "-m", *stage], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "configuration error: [spark] conf: Spark does not start with it" in done.stderr
    assert "'many' in the config \"spark.sql.shuffle.partitions\"" in done.stderr
    assert "Traceback" not in done.stderr
