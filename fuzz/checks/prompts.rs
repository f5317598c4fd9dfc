//! Any text as requests with their texts: an error in words, or requests in order that ask for something.

use isotherm_core::workload::prompts;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    let _ = prompts::is_prompts(text);
    let requests = match prompts::parse(text) {
        Err(error) => return assert!(!error.to_string().is_empty()),
        Ok(requests) => requests,
    };
    assert!(!requests.is_empty());
    assert!(requests.windows(2).all(|pair| pair[0].arrival <= pair[1].arrival));
    assert!(requests.windows(2).all(|pair| pair[0].arrival.is_some() == pair[1].arrival.is_some()));
    for request in &requests {
        assert!(!request.prompt.is_empty() && request.output_tokens != Some(0));
        assert!(request.stop.iter().flatten().all(|stop| !stop.is_empty()));
    }
}
