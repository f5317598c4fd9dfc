//! What can be said of the CUDA kernels without a card: NVIDIA's own compiler and assembler take them for every architecture,
//! they take the arguments that the backend gives them, and they need no more registers and shared memory than is written
//! down in `kernels/resources.tsv`. Nothing is executed.

use super::emulated::compiler;
use isotherm_runtime::backend::cuda::kernels::{Kernel, Module};
use isotherm_runtime::backend::cuda::ptx;
use isotherm_runtime::backend::roofline::{ARCHITECTURES, Resources};
use isotherm_runtime::model::format::BlockFormat;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Kernel and architecture to what the assembler says of it.
type Table = BTreeMap<(String, u32), Resources>;

fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/resources.tsv")
}

#[test]
fn every_kernel_assembles_for_every_architecture_without_spills_and_within_its_written_limits() {
    const NAME: &str = "every_kernel_assembles_for_every_architecture_without_spills_and_within_its_written_limits";
    let root = match compiler() {
        Ok(root) if root.join("cuda_nvcc/bin/ptxas").is_file() => root,
        Ok(root) => return eprintln!("skipped: {NAME}: no package nvidia-cuda-nvcc-cu12 under {}", root.display()),
        Err(why) => return eprintln!("skipped: {NAME}: {why}"),
    };
    let mut again = Command::new(std::env::current_exe().expect("a running program has a path"));
    again.args(["kernels::inside_assembler", "--exact", "--ignored", "--nocapture"]);
    again.env("LD_LIBRARY_PATH", root.join("cuda_nvrtc/lib")).env("ISOTHERM_PTXAS", root.join("cuda_nvcc/bin/ptxas"));
    let output = again.output().expect("this program can be started again");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by every_kernel_assembles_for_every_architecture..., with NVIDIA's compiler in reach"]
fn inside_assembler() {
    let assembler = PathBuf::from(std::env::var_os("ISOTHERM_PTXAS").expect("the outer test names the assembler"));
    let program = std::env::current_exe().expect("a running program has a path");
    let cache = program.ancestors().nth(3).expect("target/debug/deps/it").join("emulated");
    let jobs: Vec<(Module, u32)> =
        Module::all().into_iter().flat_map(|module| ARCHITECTURES.map(|architecture| (module, architecture))).collect();
    let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&(module, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ptx =
                        ptx(module, architecture, Some(&cache.join("ptx"))).expect("the compiler takes the source");
                    check_arguments(&ptx, &module.kernels(architecture));
                    let found = assemble(&assembler, &ptx, architecture, &cache.join("ptxas"));
                    let kernels = module.kernels(architecture);
                    assert_eq!(found.len(), kernels.len(), "{} for sm_{architecture}: {found:?}", module.name());
                    let mut table = table.lock().expect("no thread fails with the table in its hands");
                    for (kernel, resources) in found {
                        table.insert((kernel, architecture), resources);
                    }
                }
            });
        }
    });
    let table = table.into_inner().expect("all threads are done");
    let text = written(&table);
    if std::env::var_os("ISOTHERM_UPDATE_RESOURCES").is_some() {
        std::fs::write(table_path(), &text).expect("the table can be written");
    }
    let kept = read(&std::fs::read_to_string(table_path()).expect("the table is in the checkout"));
    let mut grown = Vec::new();
    for (key, now) in &table {
        match kept.get(key) {
            None => grown.push(format!("{} for sm_{} is not in the table", key.0, key.1)),
            Some(limit) if now.registers > limit.registers || now.shared_bytes > limit.shared_bytes => {
                grown.push(format!("{} for sm_{}: {now:?}, written down are {limit:?}", key.0, key.1));
            }
            Some(_) => {}
        }
    }
    let gone = kept.keys().filter(|key| !table.contains_key(key)).count();
    assert!(grown.is_empty() && gone == 0, "{gone} rows of no kernel; {grown:#?}");
    let most = table.iter().max_by_key(|(_, resources)| resources.registers).expect("there are kernels");
    println!(
        "{} kernels assembled for sm_{}: no spills; most registers {} ({} for sm_{}); executed: none",
        table.len(),
        ARCHITECTURES.map(|a| a.to_string()).join(", sm_"),
        most.1.registers,
        most.0.0,
        most.0.1
    );
}

/// Compares the kernels' declared parameters, as compiled, with the table that launches are checked against.
fn check_arguments(ptx: &str, kernels: &[Kernel]) {
    for kernel in kernels {
        let head = format!(".entry {}(", kernel.name);
        let from = ptx.find(&head).unwrap_or_else(|| panic!("no {} in the PTX", kernel.name)) + head.len();
        let list = &ptx[from..from + ptx[from..].find(')').expect("a parameter list ends")];
        let kinds: String = list
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".param ."))
            .map(|line| match line.split_whitespace().next() {
                Some("u64" | "b64") => '8',
                Some("u32" | "b32") => '4',
                Some("f32") => 'f',
                other => panic!("{}: parameter of type {other:?}", kernel.name),
            })
            .collect();
        let wanted: String = kernel
            .takes
            .chars()
            .map(|letter| match letter {
                'p' | 'l' => '8',
                'u' => '4',
                other => other,
            })
            .collect();
        assert_eq!(kinds, wanted, "{} as compiled, and as the backend calls it", kernel.name);
    }
}

/// Assembles PTX and reads what the assembler says of each kernel; a spill fails.
fn assemble(assembler: &Path, ptx: &str, architecture: u32, cache: &Path) -> Vec<(String, Resources)> {
    std::fs::create_dir_all(cache).expect("the build folder can be written");
    let digest = isotherm_core::digest::Digest::of(ptx.as_bytes()).to_string().replace(':', "-");
    let kept = cache.join(format!("{digest}-sm_{architecture}.txt"));
    let said = std::fs::read_to_string(&kept).unwrap_or_else(|_| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (source, out) = (folder.path().join("a.ptx"), folder.path().join("a.cubin"));
        std::fs::write(&source, ptx).expect("it can be written");
        let output = Command::new(assembler)
            .arg("-v")
            .arg(format!("-arch=sm_{architecture}"))
            .arg(&source)
            .arg("-o")
            .arg(&out)
            .output()
            .expect("the assembler starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "sm_{architecture}: {said}");
        std::fs::write(&kept, &said).expect("the build folder can be written");
        said
    });
    let (mut out, mut name, mut spills) = (Vec::new(), String::new(), String::new());
    for line in said.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            name = rest.split('\'').next().unwrap_or_default().to_owned();
        } else if line.contains("spill") {
            spills = line.trim().to_owned();
        } else if let Some(used) = line.split("Used ").nth(1) {
            let clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
            assert_eq!(spills, clean, "{name} for sm_{architecture}");
            let number = |unit: &str| {
                let words: Vec<&str> = used.split([',', ' ']).filter(|word| !word.is_empty()).collect();
                let unit: Vec<&str> = unit.split(' ').collect();
                let at = words.windows(unit.len()).position(|window| window == unit)?;
                words.get(at.checked_sub(1)?)?.parse().ok()
            };
            let resources = Resources {
                registers: number("registers").expect("the assembler counts registers"),
                shared_bytes: number("bytes smem").unwrap_or(0),
            };
            out.push((name.clone(), resources));
        }
    }
    out
}

/// The table as text: a line a kernel, `registers:bytes` for each architecture.
fn written(table: &Table) -> String {
    let mut text = String::from(
        "# Registers of a thread and bytes of shared memory of a block, by kernel and architecture, as NVIDIA's assembler 12.9\n\
         # counts them. A test fails when one grows; ISOTHERM_UPDATE_RESOURCES=1 with that test writes this file again.\n",
    );
    let _ = writeln!(text, "kernel\t{}", ARCHITECTURES.map(|a| format!("sm_{a}")).join("\t"));
    let mut names: Vec<&String> = table.keys().map(|(name, _)| name).collect();
    names.dedup();
    for name in names {
        let cells = ARCHITECTURES.map(|architecture| match table.get(&(name.clone(), architecture)) {
            Some(resources) => format!("{}:{}", resources.registers, resources.shared_bytes),
            None => "-".to_owned(),
        });
        let _ = writeln!(text, "{name}\t{}", cells.join("\t"));
    }
    text
}

fn read(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("kernel\t")) {
        let mut cells = line.split('\t');
        let name = cells.next().expect("a line has a name");
        for (architecture, cell) in ARCHITECTURES.into_iter().zip(cells) {
            if let Some((registers, shared)) = cell.split_once(':') {
                let number = |text: &str| text.parse().expect("the table holds numbers");
                let resources = Resources { registers: number(registers), shared_bytes: number(shared) };
                table.insert((name.to_owned(), architecture), resources);
            }
        }
    }
    table
}

#[test]
fn the_same_source_compiles_to_instructions_of_amd_where_a_compiler_is_present() {
    const NAME: &str = "the_same_source_compiles_to_instructions_of_amd_where_a_compiler_is_present";
    let targets = Command::new("clang++").arg("--print-targets").output();
    if !targets.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("amdgcn")) {
        return eprintln!("skipped: {NAME}: there is no GPU compiler for AMD here (clang++ with the target amdgcn)");
    }
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator/amd.h");
    let stub = std::fs::read_to_string(stub).expect("the stand-in header is in the checkout");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut count = 0;
    // 74: what has no tensor cores of NVIDIA's kind has no kernel for them either.
    for (module, card) in [
        (Module::Common, "gfx90a"),
        (Module::Common, "gfx1030"),
        (Module::Of(BlockFormat::Q4K), "gfx90a"),
        (Module::Of(BlockFormat::Q6K), "gfx1030"),
        (Module::Of(BlockFormat::Q8_0), "gfx1030"),
        (Module::Of(BlockFormat::F16), "gfx90a"),
    ] {
        let (source, out) = (folder.path().join("a.hip"), folder.path().join("a.s"));
        std::fs::write(&source, format!("{stub}\n{}", module.source())).expect("it can be written");
        let output = Command::new("clang++")
            .args([
                "-x",
                "hip",
                "-nogpuinc",
                "-nogpulib",
                "--cuda-device-only",
                "-O2",
                "-std=c++17",
                "-S",
                "-Wno-everything",
            ])
            .arg(format!("--offload-arch={card}"))
            .arg(&source)
            .arg("-o")
            .arg(&out)
            .output()
            .expect("clang++ starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} for {card}: {said}", module.name());
        let text = std::fs::read_to_string(&out).expect("it was made");
        for kernel in module.kernels(74) {
            assert!(text.contains(&format!(".amdhsa_kernel {}\n", kernel.name)), "{} for {card}", kernel.name);
            count += 1;
        }
    }
    println!("{count} kernels compiled to AMD's instructions by clang; executed: none");
}
