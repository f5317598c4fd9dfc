//! Batches: sweeps, resuming, shards, questions, pages.

use crate::Place;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A sweep of twelve quick points, one of which cannot be read, and a scenario that has no plan.
const PILE: &str = "name = \"pile\"\nquestion = \"Which pile?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n\
[[devices]]\ntable = \"rtx-3060\"\nname = \"small\"\n[[devices]]\ntable = \"rtx-4090\"\nname = \"big\"\ncount = 1\n\
[network]\nwithin_site = { latency = \"0.4 ms\", bandwidth = \"1 Gbit/s\" }\n\
[workload]\nrate = \"2 /s\"\nprompt_tokens = 128\noutput_tokens = 32\nrequests = 70\n[objective]\nminimise = \"tpot\"\n\
[prices]\ncurrency = \"USD\"\ndevices = { \"rtx-4090\" = 1599, \"rtx-3060\" = 329 }\n\
[sweep.vary]\n\"devices.big.count\" = [1, 2]\n\"environment.ambient\" = [\"15 °C\", \"35 °C\", \"-400 °C\"]\n\
\"network.within_site.bandwidth\" = [\"1 Gbit/s\", \"10 Gbit/s\"]\n";
const POINTS: u64 = 13;
const HOW: &str = "--seeds 1 --part-rows 5";
/// Of Linux: opening does not wait for the other end.
const O_NONBLOCK: i32 = 0o4000;

fn scenarios() -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.path("in/home")).expect("writable");
    place.write("in/home/pile.toml", PILE);
    let (fixed, _) = PILE.split_once("[sweep").expect("a sweep");
    place.write(
        "in/small.toml",
        &fixed
            .replace("table = \"rtx-4090\"", "table = \"rtx-4090\"\nmemory = \"1 GB\"")
            .replace("table = \"rtx-3060\"", "table = \"rtx-3060\"\nmemory = \"1 GB\""),
    );
    place
}

/// The files of results, in order of their names, with their bytes.
fn results(place: &Place, folder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(place.path(&format!("{folder}/results"))).expect("results");
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("listed").path())
        .map(|path| {
            (path.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&path).expect("readable"))
        })
        .filter(|(name, _)| name.starts_with("part-"))
        .collect();
    files.sort();
    files
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

/// What a question over a batch is answered.
fn asked(place: &Place, folder: &str, question: &str) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_isotherm"))
        .args(["-q", "query", folder, question, "--format", "json"])
        .current_dir(place.path(""))
        .env("ISOTHERM_HOME", place.path("home"))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    json(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_batch_has_a_row_for_every_point_and_isolates_what_fails() {
    let place = scenarios();
    let (out, _) = place.expect(0, &format!("-q batch in -o out {HOW} --format json"));
    let summary = json(&out);
    assert_eq!((summary["points"].as_u64(), summary["failed"].as_u64()), (Some(POINTS), Some(4)), "{summary}");
    assert!(summary["failures"][0].as_str().is_some_and(|why| why.contains("-400 °C")), "{summary}");
    assert_eq!(results(&place, "out").len(), 3, "thirteen rows in files of five");
    let ask = |question: &str| asked(&place, "out", question);
    let rows = ask("select status, count(*) as n group by status order by n desc");
    assert_eq!(rows[0]["n"], 8.0, "{rows}");
    let cheapest =
        ask("select argmin(number, pile_price) as number, min(pile_price) as price where tpot_p90_seconds < 1");
    assert_eq!(cheapest[0]["price"], 1928.0, "{cheapest}");
    let solve = ask("select count(plan_seconds) as n from solve");
    assert!(solve[0]["n"].as_f64().is_some_and(|n| n >= 8.0), "{solve}");
    let (_, message) = place.expect(2, "-q query out select");
    assert!(message.contains("character") || message.contains("expected"), "{message}");

    place.expect(0, "-q batch extract out home/pile#1 -o point");
    place.expect(0, "-q check point/plan.json point/scenario.toml --devices point/devices.json");
    place.expect(0, "-q report point");
}

#[test]
fn a_finished_batch_is_taken_as_it_is_and_a_changed_scenario_alone_is_done_again() {
    let place = scenarios();
    let first = json(&place.expect(0, &format!("-q batch in -o out {HOW} --format json")).0);
    let again = json(&place.expect(0, &format!("-q batch in -o out {HOW} --format json")).0);
    assert_eq!(again["resumed"].as_u64(), Some(POINTS));
    assert_eq!(first["results"], again["results"]);
    place.write("in/home/pile.toml", &PILE.replace("\"35 °C\"", "\"36 °C\""));
    let changed = json(&place.expect(0, &format!("-q batch in -o out {HOW} --format json")).0);
    assert_eq!(changed["resumed"].as_u64(), Some(POINTS - 4), "{changed}");
    assert_ne!(first["results"], changed["results"]);
}

#[test]
fn points_that_planning_cannot_tell_apart_share_one_plan_that_holds_for_each() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("in")).expect("writable");
    let (fixed, _) = PILE.split_once("[sweep").expect("a sweep");
    let sweep = "[sweep.vary]\n\"devices.big.count\" = [1, 2]\n\"workload.rate\" = [\"1 /s\", \"2 /s\", \"4 /s\"]\n";
    place.write("in/pace.toml", &format!("{fixed}{sweep}"));
    for jobs in [1, 2] {
        place.expect(0, &format!("-q batch in -o out{jobs} {HOW} --jobs {jobs}"));
    }
    assert_eq!(results(&place, "out1"), results(&place, "out2"));
    let shared = asked(&place, "out2", "select count(*) as n from solve where reused = 'true'");
    assert_eq!(shared[0]["n"], 4.0, "two of six are planned: {shared}");
    place.expect(0, "-q batch extract out2 pace#2 -o point");
    place.expect(0, "-q check point/plan.json point/scenario.toml --devices point/devices.json");
}

/// What joins the sites is slower than any rate in question, so no dive over all sites in a row can begin.
#[test]
fn a_search_ends_where_no_row_of_sites_passes_the_rate_asked_for() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("in")).expect("writable");
    place.write(
        "in/apart.toml",
        "name = \"apart\"\nquestion = \"?\"\n[model]\nname = \"llama-3.1-70b-q4_0\"\n[[devices]]\n\
         table = \"nvidia-l40s\"\nname = \"a\"\ncount = 7\nsite = \"e\"\n[[devices]]\ntable = \"nvidia-a10\"\n\
         name = \"b\"\ncount = 7\nsite = \"w\"\n[network]\n\
         within_site = { latency = \"0.1 ms\", bandwidth = \"25 Gbit/s\", kind = \"socket\" }\n\
         between_sites = { latency = \"20 ms\", bandwidth = \"60 Mbit/s\", kind = \"socket\" }\n[workload]\n\
         rate = \"8 /s\"\nprompt_tokens = { min = 64, max = 1024 }\noutput_tokens = { min = 32, max = 256 }\n\
         requests = 10\n[objective]\nmaximise = \"throughput\"\n[serving]\nrequests_max = 32\n\
         step_tokens_max = 512\n",
    );
    let (out, _) = place.expect(0, "-q batch in -o out --gap 0.001 --nodes 800 --seeds 1 --format json");
    assert_eq!(json(&out)["failed"].as_u64(), Some(0), "{out}");
}

/// Kills the batch at moments spread over its run; whatever the moment, the next run goes on and ends with the same
/// bytes. How far a killed run got depends on the machine, and nothing here asks.
#[test]
fn a_batch_killed_at_any_moment_goes_on_and_ends_with_the_same_tables() {
    let place = scenarios();
    place.expect(0, &format!("-q batch in -o whole {HOW}"));
    let whole = results(&place, "whole");
    let mut moment = 0x9e37_79b9_u64;
    for _ in 0..10 {
        // A multiplicative generator: moments from 0 to half a second, not always the same stretch.
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = Command::new(env!("CARGO_BIN_EXE_isotherm"))
            .args(format!("-q batch in -o killed {HOW}").split_whitespace())
            .current_dir(place.path(""))
            .env("ISOTHERM_HOME", place.path("home"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(Duration::from_millis((moment >> 33) % 500));
        child.kill().expect("SIGKILL is delivered");
        child.wait().expect("it ended");
    }
    place.expect(0, &format!("-q batch in -o killed {HOW}"));
    assert!(results(&place, "killed") == whole, "the tables differ after kills");
}

#[test]
fn a_folder_that_a_batch_writes_to_is_refused_to_others_until_it_ends_however_it_ends() {
    let place = scenarios();
    std::fs::create_dir_all(place.path("out")).expect("writable");
    // A batch that waits for its own description for ever holds the folder.
    let made = Command::new("mkfifo").arg(place.path("out/batch.json")).status().expect("mkfifo is there");
    assert!(made.success());
    let begun = |shard: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_isotherm"))
            .args(format!("-q batch in -o out {HOW}").split_whitespace())
            .args(shard)
            .current_dir(place.path(""))
            .env("ISOTHERM_HOME", place.path("home"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts")
    };
    // Who writes to a pipe that nobody reads is refused: so it is known when the batch has come to it.
    let reached = || {
        let options = std::fs::File::options().write(true).custom_flags(O_NONBLOCK).clone();
        loop {
            match options.open(place.path("out/batch.json")) {
                Ok(pipe) => break pipe,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    };
    let refused = |shard: &str| {
        let (_, message) = place.expect(2, &format!("-q batch in -o out {HOW}{shard}"));
        assert!(message.contains("is writing to out") && message.contains("-o"), "{message}");
    };
    let mut whole = begun(&[]);
    let pipe = reached();
    refused("");
    refused(" --shard 0/2");
    whole.kill().expect("SIGKILL is delivered");
    whole.wait().expect("it ended");
    drop(pipe);
    let mut shard = begun(&["--shard", "0/2"]);
    let _pipe = reached();
    refused("");
    refused(" --shard 0/2");
    std::fs::remove_file(place.path("out/batch.json")).expect("there");
    place.expect(0, &format!("-q batch in -o out {HOW} --shard 1/2"));
    shard.kill().expect("SIGKILL is delivered");
    shard.wait().expect("it ended");
    place.expect(0, &format!("-q batch in -o out {HOW}"));
}

#[test]
fn shards_joined_are_what_one_process_writes() {
    let place = scenarios();
    let whole = json(&place.expect(0, &format!("-q batch in -o whole {HOW} --format json")).0);
    for shard in 0..8 {
        place.expect(0, &format!("-q batch in -o shards {HOW} --shard {shard}/8"));
    }
    let merged = json(&place.expect(0, "-q batch merge shards --format json").0);
    assert_eq!(merged["results"], whole["results"]);
    assert!(results(&place, "shards") == results(&place, "whole"), "the files differ");
}

#[test]
fn where_the_folders_lie_and_how_they_are_named_changes_no_byte() {
    let place = scenarios();
    place.expect(0, &format!("-q batch in -o here {HOW}"));
    let (input, elsewhere) = (place.path("in"), place.path("deep/there"));
    place.expect(0, &format!("-q batch {} -o {} {HOW}", input.display(), elsewhere.display()));
    assert!(results(&place, "here") == results(&place, "deep/there"), "the files differ");
}

#[test]
fn shards_that_are_missing_changed_or_of_another_batch_are_refused() {
    let place = scenarios();
    for shard in 0..2 {
        place.expect(0, &format!("-q batch in -o out {HOW} --shard {shard}/2"));
    }
    let refused = |part: &str| {
        let (_, message) = place.expect(5, "-q batch merge out");
        assert!(message.contains(part), "{message}");
    };
    let mark = "out/shards/of=2/shard=1/_SUCCESS";
    let whole = place.keep(mark);
    std::fs::remove_file(place.path(mark)).expect("there");
    refused("shard 1/2 is missing");
    let text = String::from_utf8(whole.clone()).expect("JSON");
    place.write(mark, &text.replace(env!("CARGO_PKG_VERSION"), "9.9.9"));
    refused("9.9.9");
    place.write(mark, &text.replace("\"1/2\"", "\"0/2\""));
    refused("holds 0/2");
    std::fs::write(place.path(mark), &whole).expect("writable");
    place.alter("out/shards/of=2/shard=1/part-00000.parquet");
    refused("is not the file");
    // A shard in the place of another: its points are there twice, or belong elsewhere.
    let copy = |name: &str| {
        std::fs::copy(
            place.path(&format!("out/shards/of=2/shard=0/{name}")),
            place.path(&format!("out/shards/of=2/shard=1/{name}")),
        )
    };
    for entry in std::fs::read_dir(place.path("out/shards/of=2/shard=0")).expect("a shard") {
        copy(&entry.expect("listed").file_name().to_string_lossy()).expect("copied");
    }
    let stolen = String::from_utf8(place.keep(mark)).expect("JSON").replace("\"0/2\"", "\"1/2\"");
    place.write(mark, &stolen);
    refused("shard");
    let (_, message) = place.expect(2, "-q batch in -o out --seeds 2 --part-rows 5 --shard 0/2");
    assert!(message.contains("another batch"), "{message}");
}

#[test]
fn the_environment_of_an_array_job_names_the_shard() {
    let place = scenarios();
    let run = |name: &str, value: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_isotherm"))
            .args(format!("-q batch in -o out {HOW} --shard auto/4 --format json").split_whitespace())
            .current_dir(place.path(""))
            .env("ISOTHERM_HOME", place.path("home"))
            .env(name, value)
            .output()
            .expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (name, value) in [("SLURM_ARRAY_TASK_ID", "2"), ("JOB_COMPLETION_INDEX", "3")] {
        let (code, out) = run(name, value);
        assert_eq!(code, Some(0), "{out}");
        assert_eq!(json(&out)["shard"], format!("{value}/4"));
    }
    assert_eq!(run("SLURM_ARRAY_TASK_ID", "4").0, Some(2), "there are four");
    place.expect(2, &format!("-q batch in -o out {HOW} --shard auto/4"));
    place.expect(2, "-q batch in -o out --shard 4/4");
}

#[test]
fn emitted_jobs_name_every_shard_once_and_gnu_parallel_runs_them() {
    let place = scenarios();
    let program = env!("CARGO_BIN_EXE_isotherm");
    let (slurm, _) = place.expect(0, &format!("batch emit slurm in --into out --shards 3 {HOW}"));
    assert!(slurm.contains("--array=0-2") && slurm.contains("--shard auto/3"), "{slurm}");
    let (k8s, _) = place.expect(0, &format!("batch emit k8s in --into /out --shards 3 {HOW}"));
    assert!(k8s.contains("completionMode: Indexed") && k8s.contains("completions: 3"), "{k8s}");
    place.expect(0, &format!("batch emit parallel in --into out --shards 3 {HOW} --program {program} -o job.sh"));
    if Command::new("parallel").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!(
            "skipped: emitted_jobs_name_every_shard_once_and_gnu_parallel_runs_them: GNU parallel is not installed"
        );
        return;
    }
    let job = Command::new("bash")
        .arg("job.sh")
        .current_dir(place.path(""))
        .env("ISOTHERM_HOME", place.path("home"))
        .output()
        .expect("bash starts");
    assert!(job.status.success(), "{}", String::from_utf8_lossy(&job.stderr));
    place.expect(0, &format!("-q batch in -o whole {HOW}"));
    assert!(results(&place, "out") == results(&place, "whole"), "the files differ");
}

/// A Slurm of one node, where its parts are installed and may be started; an array runs the shards.
#[test]
fn a_slurm_array_gives_the_same_tables() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/slurm.sh");
    let usable = Command::new("bash").arg(&script).arg("usable").output().expect("bash starts");
    if !usable.status.success() {
        let why = String::from_utf8_lossy(&usable.stdout);
        eprintln!("skipped: a_slurm_array_gives_the_same_tables: {}", why.trim());
        return;
    }
    let place = scenarios();
    place.expect(0, &format!("-q batch in -o whole {HOW}"));
    let root = place.path("");
    let (input, into) = (root.join("in"), root.join("out"));
    let program = env!("CARGO_BIN_EXE_isotherm");
    place.expect(
        0,
        &format!(
            "batch emit slurm {} --into {} --shards 4 {HOW} --program {program} -o job.sbatch",
            input.display(),
            into.display()
        ),
    );
    let job = Command::new("bash")
        .arg(&script)
        .args(["run", "job.sbatch"])
        .current_dir(&root)
        .env("ISOTHERM_HOME", place.path("home"))
        .output()
        .expect("bash starts");
    assert!(job.status.success(), "{}{}", String::from_utf8_lossy(&job.stdout), String::from_utf8_lossy(&job.stderr));
    place.expect(0, "-q batch merge out");
    assert!(results(&place, "out") == results(&place, "whole"), "the files differ");
}

#[test]
fn pandas_and_duckdb_read_the_tables_as_they_are_described() {
    let Some(python) = std::env::var_os("ISOTHERM_PYTHON") else {
        eprintln!(
            "skipped: pandas_and_duckdb_read_the_tables_as_they_are_described: no Python environment (make test installs it)"
        );
        return;
    };
    let there = Command::new(&python).args(["-c", "import pandas, duckdb, pyarrow"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "skipped: pandas_and_duckdb_read_the_tables_as_they_are_described: pandas or duckdb is not installed"
        );
        return;
    }
    let place = scenarios();
    place.expect(0, &format!("-q batch in -o out {HOW}"));
    let check = r###"
import sys, pandas, duckdb
page = open(sys.argv[1]).read()
described = page.split("## results", 1)[1].split("\n## ", 1)[0]
names = {name.strip("` ") for line in described.splitlines() if line.startswith("| `") for name in line.split("|")[1].split(",")}
frame = pandas.concat(
    pandas.read_parquet(f"out/results/part-0000{i}.parquet") for i in range(3))
own = {c for c in frame.columns if not c.startswith("vary.")}
assert own == {n for n in names if not n.startswith("vary.")}, (own - names, names - own)
assert len(frame) == 13 and frame["status"].isna().sum() == 4, frame["status"]
assert str(frame["number"].dtype) == "uint64" and frame["gap"].dtype == "float64"
assert frame["energy_joules"].isna().all(), "unknown is null, never 0"
count, price = duckdb.sql("select count(*), min(pile_price) from 'out/results/part-*.parquet' where tpot_seconds is not null").fetchone()
assert (count, price) == (8, 1928.0), (count, price)
joined = duckdb.sql("select count(*) from 'out/results/part-*.parquet' r join 'out/results/solve-*.parquet' s using (point)").fetchone()
assert joined == (13,), joined
"###;
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/tables.md");
    let output =
        Command::new(python).args(["-c", check]).arg(page).current_dir(place.path("")).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_scenario_of_the_corpus_asks_its_own_question_and_can_be_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scenarios").canonicalize().expect("tracked");
    let place = Place::new();
    let mut questions = std::collections::BTreeSet::new();
    let mut open = vec![folder];
    while let Some(folder) = open.pop() {
        for path in std::fs::read_dir(&folder).expect("listed").map(|entry| entry.expect("listed").path()) {
            let tables = path.ends_with("models") || path.ends_with("devices");
            if path.is_dir() && !tables {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "toml") {
                place.expect(0, &format!("-q scenario check {}", path.display()));
                let text = std::fs::read_to_string(&path).expect("readable");
                let question = text.lines().find(|line| line.starts_with("question")).expect("a question").to_owned();
                assert!(questions.insert(question), "{} asks what another asks", path.display());
            }
        }
    }
    assert!(questions.len() >= 60, "{}", questions.len());
}
