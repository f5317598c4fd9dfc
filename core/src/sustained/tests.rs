use super::*;
use crate::figure::Figure;
use crate::thermal::network::Network;
use crate::thermal::{Branch, Fan};
use crate::units::{JoulesPerKelvin, KelvinPerWatt};

fn record(resistance: f64) -> ThermalRecord {
    ThermalRecord {
        resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(resistance), "test"),
        capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(100.0), "test"),
        throttle_celsius: Some(Figure::declared(Celsius::of(80.0), "test")),
        resume_celsius: None,
        throttled_speed: None,
        die: None,
        case: None,
        fan: None,
    }
}

#[test]
fn the_steady_temperature_is_that_of_the_network_that_the_simulator_integrates() {
    // Two cards in one case: nodes case, sink a, die a, sink b.
    let (a, b) = (
        ThermalRecord {
            die: Some(Branch {
                resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(0.06), "test"),
                capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(10.0), "test"),
            }),
            ..record(0.3)
        },
        record(0.5),
    );
    let mut network = Network::of(vec![4_000.0, 100.0, 10.0, 100.0]);
    network.to_air[0] = 1.0 / 0.05;
    network.join(1, 0, 1.0 / 0.3);
    network.join(1, 2, 1.0 / 0.06);
    network.join(3, 0, 1.0 / 0.5);
    let rises = network.modes().steady(&[0.0, 0.0, 120.0, 60.0]).expect("joined to the air");
    let case = Celsius::of(30.0 + 0.05 * 180.0);
    assert!((steady_celsius(&a, case, Watts::of(120.0)).value() - (30.0 + rises[2])).abs() < 1e-6);
    assert!((steady_celsius(&b, case, Watts::of(60.0)).value() - (30.0 + rises[3])).abs() < 1e-6);
}

#[test]
fn a_fan_balances_what_comes_in_with_what_is_given_off() {
    let fan = Fan {
        start_celsius: Figure::declared(Celsius::of(60.0), "test"),
        watts_per_kelvin_squared: Figure::declared(0.04, "test"),
        full_celsius: Some(Figure::declared(Celsius::of(75.0), "test")),
    };
    let blown = ThermalRecord { fan: Some(fan), ..record(0.8) };
    for power in [10.0, 40.0, 60.0, 90.0, 150.0, 300.0] {
        let celsius = steady_celsius(&blown, Celsius::of(25.0), Watts::of(power)).value();
        let conductance = 1.0 / 0.8 + 0.04 * (celsius.min(75.0) - 60.0).max(0.0);
        assert!(((celsius - 25.0) * conductance - power).abs() < 1e-6, "{power} W leads to {celsius} °C");
        assert!(celsius <= steady_celsius(&record(0.8), Celsius::of(25.0), Watts::of(power)).value() + 1e-9);
    }
}

#[test]
fn a_row_holds_what_nobody_uses_even_where_nothing_is_left() {
    let row = Row { subject: Subject::Temperature("a".into()), terms: vec![(DeviceId(0), 40.0)], most: -3.0 };
    assert!(row.holds(&[0.0]) && !row.holds(&[1e-6]));
    let row = Row { most: 20.0, ..row };
    assert!(row.holds(&[0.5]) && !row.holds(&[0.500_001]));
}
