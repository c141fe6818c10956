"""What to do about each check that fails, in a sentence; docs/operations.md#exit-3-data says more."""

from __future__ import annotations

_SOURCE = "The source's own defect: ask the platform. What is known of it goes into the staging SQL as drop: or repair:"
_SPELLED = (
    "Other ids than before: ask the platform, then cast or merge: them in the SQL. A move that is meant so: run the "
    'day with the check set to "warning" in [checks] severity'
)
_HOLIDAY = 'A real holiday: run the day with the check set to "warning" in [checks] severity'
OTHER = "Look at the example; docs/operations.md#exit-3-data has every check"
ADVICE = {
    "other_day": "Midnight of another time zone, or yesterday's file: convert the zone in the SQL, or deliver it again",
    "null_id": "A join that finds nothing, or a column that came empty: mend the SQL, or ask the platform",
    "empty_id": "Ids came empty: ask the platform, or drop: such rows in the SQL",
    "padded_id": "Blanks make it another advertiser, without a history: trim() in the SQL",
    "number_id": "Ids became numbers on their way: write them as text, or take .0 off in the SQL",
    "long_id": "Ids are cut or glued together: look at the example; [checks] id_max_length, if it is right",
    "control_characters": "Free text, or a broken export: cut or map it in the SQL",
    "lost_characters": "The file is not UTF-8: [[source]] options encoding",
    "not_ascii": "Look whether ids are spelled so on purpose; if so, nothing is to do",
    "reserved_id": "* stands for all scenarios: give the scenario another id in the SQL",
    "unknown_scenario": "A new placement or market: add it to the scenario source",
    "plan_of_the_past": "Plans must be of days to come: look at for_day in known_future.sql",
    "duplicate_key": "The day was delivered twice, or a join in the SQL multiplies rows: look at it in the source",
    "null": "A metric without a value: where a null is a zero, say so in the SQL; else ask the platform",
    "nan": _SOURCE,
    "infinite": _SOURCE,
    "absurd": _SOURCE,
    "negative": _SOURCE,
    "not_above": "Two metrics contradict each other: ask the platform; a rule for it goes into the SQL as repair:",
    "long_attribute": "Free text in a column that should be a category: cut or map it in the SQL",
    "empty_day": f"The delivery is late or empty. {_HOLIDAY}",
    "volume": f"Half a delivery: wait for the rest. {_HOLIDAY}",
    "changed_ids": _SPELLED,
    "new_advertisers": _SPELLED,
    "freshness": "A source is late: look when it delivers; its rows count when they come",
    "day_completeness": "A day is missing in the history: m2m status says which, and the command that stages it",
    "attributes_known": "Profiles are missing or unknown: ask for the attribute's source",
    "half_written": "A writer is not done, or died: look, and run the day again when it is done",
    "unscored": "A fault of the program, not of the data: report it with the run's log",
}
