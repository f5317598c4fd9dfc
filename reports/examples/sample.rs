//! Writes pages of made-up reports into the folder given as the first argument, to look at.

#[path = "../tests/it/sample.rs"]
#[allow(dead_code, reason = "the tests use what this does not")]
mod sample;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    std::fs::create_dir_all(&folder)?;
    let write = |name: &str, report: &isotherm_reports::Report| {
        std::fs::write(std::path::Path::new(&folder).join(name), isotherm_reports::render(report))
    };
    write("sample.html", &sample::sample())?;
    write("sixty.html", &sample::sixty())
}
