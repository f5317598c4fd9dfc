//! Any text as a log of power and temperature: an error in words, or samples in order of time that a replay can use.

use isotherm_core::thermal::log::ThermalLog;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    match ThermalLog::parse(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(log) => {
            assert!(!log.is_empty() && log.watts.len() == log.len() && log.celsius.len() == log.len());
            assert!(log.seconds.windows(2).all(|pair| pair[0] < pair[1]), "time rises");
            assert!(log.watts.iter().chain(&log.celsius).all(|value| value.is_finite()));
            for column in
                [&log.ambient, &log.fan, &log.clock, &log.cap, &log.utilisation, &log.memory].into_iter().flatten()
            {
                assert!(column.len() == log.len() && column.iter().all(|value| value.is_finite()));
            }
            assert!(log.interval() > 0.0);
        }
    }
}
