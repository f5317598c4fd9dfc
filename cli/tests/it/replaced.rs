//! A file that is replaced between its check and its use.

use super::{Place, sealed};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};

fn device_of(place: &Place, file: &str) -> String {
    let read: Value = serde_json::from_slice(&place.keep(file)).expect("JSON");
    let stages = if read["trace"].is_object() { &read["trace"]["stages"] } else { &read["stages"] };
    let device = if stages[0]["device"].is_string() { &stages[0]["device"] } else { &stages[0]["devices"][0] };
    device.as_str().expect("a device").to_owned()
}

#[test]
fn a_plan_that_is_replaced_while_it_is_checked_and_used_never_runs() {
    let place = sealed();
    let good = device_of(&place, "plan.json");
    // Another plan that holds as well, but was not sealed: whichever runs is seen in its record.
    let sources = "--devices devices.json --model model.gguf";
    place.expect(0, &format!("-q plan scenario.toml {sources} --ban {good} -o other.json"));
    let other = device_of(&place, "other.json");
    assert_ne!(good, other);
    let (sealed_plan, other_plan) = (place.keep("plan.json"), place.keep("other.json"));
    let put = |bytes: &[u8]| {
        std::fs::write(place.path("next.json"), bytes).expect("writable");
        std::fs::rename(place.path("next.json"), place.path("plan.json")).expect("replaced");
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                put(&other_plan);
                std::thread::yield_now();
                put(&sealed_plan);
                std::thread::yield_now();
            }
        });
        for round in 0..25 {
            let record = format!("round-{round}.json");
            let output = place.run(&format!("-q run manifest.json --prompt hello --raw --tokens 2 -o {record}"));
            let code = output.status.code();
            if code == Some(0) {
                assert_eq!(device_of(&place, &record), good, "what was not sealed ran in round {round}");
            } else {
                assert_eq!(code, Some(5), "{}", String::from_utf8_lossy(&output.stderr));
                assert!(!place.path(&record).exists());
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let run = "-q run manifest.json --prompt hello --raw --tokens 2";
    put(&other_plan);
    place.expect(5, run);
    put(&sealed_plan);
    place.expect(0, run);
}
