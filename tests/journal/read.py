"""Reads an agent's journal as operators do, with DuckDB and with pandas, and checks every record against the schema.

Says on standard output, as JSON, what each of them found. The two queries are those of docs/journal.md.
"""

import argparse
import glob
import json
import sys

import duckdb
import jsonschema
import pandas

QUERY = """
SELECT action, count(*) AS times, avg(duration_ms) AS ms
FROM read_json('{files}', format = 'newline_delimited', columns = {{
    sequence: 'UBIGINT', timestamp: 'TIMESTAMP', kind: 'VARCHAR', action: 'VARCHAR', incident: 'VARCHAR', mode: 'VARCHAR',
    grade: 'UTINYINT', step: 'UBIGINT', duration_ms: 'UBIGINT', details: 'JSON'}})
WHERE kind = 'outcome' GROUP BY action ORDER BY times DESC;
"""


def check(schema_path, paths):
    """Every record against the schema; the first that does not hold is named, and ends this."""
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    records = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                for error in validator.iter_errors(record):
                    sys.exit(f"{path}: record {record.get('sequence')}: {error.json_path}: {error.message}")
                records += 1
    # A schema that takes anything would prove nothing.
    if validator.is_valid({"schema": 1}) or validator.is_valid({**record, "kind": "guess"}):
        sys.exit("the schema takes what is no record")
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("schema")
    parser.add_argument("journal", help="the folder")
    args = parser.parse_args()
    files = args.journal + "/*.jsonl"
    paths = sorted(glob.glob(files))
    records = check(args.schema, paths)
    ended = duckdb.sql(QUERY.format(files=files)).fetchall()
    guessed = duckdb.sql(f"SELECT count(*), max(sequence) FROM read_json('{files}', format = 'newline_delimited')").fetchone()
    journal = pandas.concat(pandas.read_json(path, lines=True) for path in paths)
    resolved = journal[journal.kind == "resolved"].groupby("mode").duration_ms.describe()
    print(json.dumps({
        "records": records,
        "duckdb": {action: {"times": times, "ms": ms} for action, times, ms in ended},
        "duckdb_records": guessed[0],
        "last": guessed[1],
        "pandas_records": len(journal),
        "pandas_resolved": {mode: int(row["count"]) for mode, row in resolved.iterrows()},
    }))


main()
