//! Pages in a real browser: nothing on the console, no request, and whole without scripts.

use crate::Place;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The browser, under the names that systems give it.
fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    })
}

/// Counts whoever connects, as the proxy through which every request of the browser would have to go.
fn watched() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0_u8; 1024];
            let read = stream.read(&mut head).unwrap_or(0);
            // The browser's own services may call home; a page's request names another host.
            let line = String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned();
            if !line.contains("google") && !line.contains("gstatic") && !line.is_empty() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (port, asked)
}

/// The page's tree after loading, and what the browser said.
fn loaded(place: &Place, name: &str, page: &str, port: u16) -> (String, String) {
    let profile = place.path("profile");
    let output = Command::new(name)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--dump-dom"])
        .arg(format!("--proxy-server=127.0.0.1:{port}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", place.path(page).display()))
        .output()
        .expect("the browser starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_browser_shows_the_pages_without_an_error_a_request_or_a_need_for_scripts() {
    let Some(name) = browser() else {
        eprintln!(
            "skipped: a_browser_shows_the_pages_without_an_error_a_request_or_a_need_for_scripts: chromium is not installed"
        );
        return;
    };
    let place = Place::new();
    std::fs::create_dir(place.path("in")).expect("writable");
    let scenario = "name = \"pile\"\nquestion = \"Which pile?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n[[devices]]\n\
                    table = \"rtx-4090\"\nname = \"big\"\n[network]\nwithin_site = { latency = \"0.4 ms\", bandwidth = \"1 Gbit/s\" }\n\
                    [workload]\nrate = \"2 /s\"\nrequests = 70\n[prices]\ncurrency = \"USD\"\ndevices = { \"rtx-4090\" = 1599 }\n\
                    [sweep.vary]\n\"devices.big.count\" = [1, 2, 3]\n\"environment.ambient\" = [\"15 °C\", \"25 °C\", \"35 °C\"]\n";
    place.write("in/pile.toml", scenario);
    place.expect(0, "-q batch in -o out --seeds 2");
    place.expect(0, "-q report out");
    place.expect(0, "-q batch extract out pile#4 -o out/point");
    place.expect(0, "-q report out/point");
    let (port, asked) = watched();
    for page in ["out/report.html", "out/point/report.html"] {
        let (tree, said) = loaded(&place, name, page, port);
        assert!(tree.contains("class=\"zoom\""), "the script ran: {said}");
        let console: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(console.is_empty(), "{page}: {console:?}");
        // The same page under a policy that names another script, so that the browser runs none: it says so, and shows
        // all that a browser without scripts would. (One with scripts switched off dumps no tree at all.)
        let whole = std::fs::read_to_string(place.path(page)).expect("readable");
        let strict = whole.replacen("script-src 'sha256-", "script-src 'sha256-0", 1);
        assert_ne!(whole, strict, "{page} names its script");
        place.write("strict.html", &strict);
        let (plain, said) = loaded(&place, name, "strict.html", port);
        assert!(!plain.contains("class=\"zoom\""), "no script ran: {said}");
        for part in ["<svg", "<table", "class=\"headline\""] {
            assert!(plain.contains(part), "{page} lacks {part} without scripts");
        }
        assert_eq!(plain.matches("<tr").count(), tree.matches("<tr").count(), "{page} has all rows without scripts");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "a page asked the network for something");
}
