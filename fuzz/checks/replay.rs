//! Any text as a recorded load: an error in words, or requests in order of arrival that ask for something.

use isotherm_core::workload::replay::Replay;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    let replay = match Replay::parse(text) {
        Err(error) => return assert!(!error.to_string().is_empty()),
        Ok(replay) => replay,
    };
    let requests = replay.requests();
    assert!(!requests.is_empty());
    assert!(requests.windows(2).all(|pair| pair[0].arrival <= pair[1].arrival));
    assert!(requests.iter().all(|request| request.prompt_tokens > 0 && request.output_tokens > 0));
    let (prompt, output) = replay.lengths();
    assert!(prompt.min <= prompt.max && output.min <= output.max);
    let mut names = Vec::new();
    for request in requests.iter().take(100) {
        for size in [1, 16, 512] {
            replay.prompt_blocks(request, size, &mut names);
        }
    }
    assert_eq!(replay.clone().first(1).requests(), &requests[..1]);
}
