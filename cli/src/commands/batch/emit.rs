//! `isotherm batch emit`: the job file with which others run the shards. The command line is the contract; these files
//! only say it N times.

use crate::args::{BatchEmit, BatchEngine, BatchHow};
use crate::failure::{Code, Done, Failure};
use crate::{files, ui};
use std::fmt::Write as _;

/// Runs the command.
pub fn run(args: &BatchEmit) -> Done {
    if args.shards == 0 || args.shards > crate::args::SHARDS_MAX || args.cores == 0 {
        let what = format!("--shards must be from 1 to {} and --cores above zero", crate::args::SHARDS_MAX);
        return Err(Failure::new(Code::Usage, what));
    }
    super::prepare::how(&args.how)?;
    let text = match args.engine {
        BatchEngine::Slurm => slurm(args),
        BatchEngine::K8s => k8s(args),
        BatchEngine::Parallel => parallel(args),
    };
    match &args.output {
        Some(path) => files::write(path, text.as_bytes()),
        None => ui::print(text.as_bytes()),
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn options(how: &BatchHow) -> Vec<String> {
    let mut words = vec!["--seeds".to_owned(), how.seeds.to_string()];
    if let Some(requests) = how.requests {
        words.extend(["--requests".to_owned(), requests.to_string()]);
    }
    words.extend(["--gap".to_owned(), how.gap.to_string(), "--nodes".to_owned(), how.nodes.to_string()]);
    words.extend(["--part-rows".to_owned(), how.part_rows.to_string()]);
    words
}

/// The words of one shard's command line.
fn words(args: &BatchEmit, shard: &str) -> Vec<String> {
    let mut words = vec![args.program.clone(), "-q".into(), "batch".into(), args.directory.display().to_string()];
    words.extend(["-o".to_owned(), args.into.display().to_string()]);
    words.extend(options(&args.how));
    words.extend(["--jobs".to_owned(), args.cores.to_string(), "--shard".to_owned(), shard.to_owned()]);
    words
}

fn line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn merge(args: &BatchEmit) -> String {
    let into = args.into.display().to_string();
    line(&[args.program.clone(), "batch".into(), "merge".into(), into, "--of".into(), args.shards.to_string()])
}

fn slurm(args: &BatchEmit) -> String {
    let (last, cores) = (args.shards - 1, args.cores);
    let shard = format!("auto/{}", args.shards);
    let mut text = String::from("#!/bin/bash\n");
    let _ = writeln!(text, "# Submit with `sbatch --wait FILE`, then join the shards:\n#   {}", merge(args));
    text.push_str("# A task that is run again takes what it had done and goes on.\n");
    text.push_str("#SBATCH --job-name=isotherm-batch\n");
    let _ = writeln!(text, "#SBATCH --array=0-{last}\n#SBATCH --ntasks=1\n#SBATCH --cpus-per-task={cores}");
    text.push_str("#SBATCH --requeue\n#SBATCH --open-mode=append\nset -euo pipefail\n");
    let _ = writeln!(text, "exec {}", line(&words(args, &shard)));
    text
}

fn k8s(args: &BatchEmit) -> String {
    let shard = format!("auto/{}", args.shards);
    let command: Vec<String> =
        words(args, &shard).iter().map(|word| serde_json::Value::from(word.as_str()).to_string()).collect();
    let image = serde_json::Value::from(args.image.as_str());
    let into = serde_json::Value::from(args.into.display().to_string());
    format!(
        "# Apply with `kubectl apply -f FILE`. All pods need the folders of scenarios and results: bind the claim\n\
         # isotherm-batch to a volume that many nodes may write. Then join the shards:\n#   {}\n\
         apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: isotherm-batch\nspec:\n  completionMode: Indexed\n  \
         completions: {}\n  parallelism: {}\n  backoffLimitPerIndex: 3\n  template:\n    spec:\n      restartPolicy: Never\n      \
         containers:\n        - name: shard\n          image: {image}\n          command: [{}]\n          resources:\n            \
         requests:\n              cpu: \"{}\"\n          volumeMounts:\n            - name: batch\n              mountPath: {into}\n      \
         volumes:\n        - name: batch\n          persistentVolumeClaim:\n            claimName: isotherm-batch\n",
        merge(args),
        args.shards,
        args.shards,
        command.join(", "),
        args.cores,
    )
}

fn parallel(args: &BatchEmit) -> String {
    // GNU parallel replaces {} itself; the word stands outside the quotes.
    let shard = line(&words(args, "")).trim_end_matches("''").to_owned() + &format!("{{}}/{}", args.shards);
    format!(
        "#!/bin/bash\n# Runs the shards with GNU parallel, as many at once as there are cores for; add --sshlogin for more machines.\n\
         # Run it again after a failure: only what is missing runs.\nset -euo pipefail\n\
         seq 0 {} | parallel --joblog {}.joblog --resume-failed --halt now,fail=20% {}\n{}\n",
        args.shards - 1,
        quoted(args.into.display().to_string().trim_end_matches('/')),
        quoted(&shard),
        merge(args),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_back_from_the_shell_as_it_was() {
        assert_eq!(quoted("/a/b-1.toml"), "/a/b-1.toml");
        assert_eq!(quoted("it's here"), "'it'\\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
