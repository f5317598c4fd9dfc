//! Logs of several tools.

use super::*;

fn rows(heading: &str, row: impl Fn(usize) -> String) -> String {
    (0..30).fold(format!("{heading}\n"), |text, i| format!("{text}{}\n", row(i)))
}

#[test]
fn a_log_of_nvidia_smi_is_read_with_its_units() {
    let text = rows(
        "timestamp, name, temperature.gpu, power.draw [W], power.limit [W], clocks.current.sm [MHz], \
         clocks.current.memory [MHz], utilization.gpu [%], utilization.memory [%], fan.speed [%]",
        |i| {
            format!(
                "2025/02/27 03:29:{:02}.500, NVIDIA X, {}, {}.50 W, 130.00 W, 1500 MHz, 9001 MHz, 80 %, 20 %, {} %",
                i,
                40 + i,
                30 + i,
                30 + i
            )
        },
    );
    let log = ThermalLog::parse(&text).expect("read");
    assert_eq!((log.len(), log.celsius[3], log.watts[3]), (30, 43.0, 33.5));
    assert!((log.seconds[1] - log.seconds[0] - 1.0).abs() < 1e-6);
    assert_eq!((log.cap.as_ref().expect("there")[0], log.clock.as_ref().expect("there")[0]), (130.0, 1500.0));
    assert!((log.utilisation.as_ref().expect("there")[0] - 0.8).abs() < 1e-12);
    assert!((log.memory.as_ref().expect("there")[0] - 0.2).abs() < 1e-12);
    assert!((log.fan.as_ref().expect("there")[29] - 1.0).abs() < 1e-12);
    assert_eq!(log.ambient, None);
}

#[test]
fn units_come_from_heading_cell_or_size() {
    let log = |heading: &str, time: &dyn Fn(usize) -> String, power: &str| {
        let text = rows(heading, |i| format!("{};{power};{}", time(i), 40 + i % 3));
        ThermalLog::parse(&text).expect(heading)
    };
    let seconds = |log: &ThermalLog| log.seconds[4] - log.seconds[0];
    let a = log("time_ms;power (mW);temp_c", &|i| (i * 500).to_string(), "42500");
    assert!((seconds(&a) - 2.0).abs() < 1e-9 && (a.watts[0] - 42.5).abs() < 1e-12);
    let b = log("Timestamp;Power;Temperature", &|i| (1_740_626_971_958 + 1_000 * i).to_string(), "0.0425 kW");
    assert!((seconds(&b) - 4.0).abs() < 1e-6 && (b.watts[0] - 42.5).abs() < 1e-12, "{b:?}");
    let c = log("time;Power;GPU Temp (C)", &|i| format!("2025-02-27T03:29:{i:02}Z"), "42500");
    assert!((seconds(&c) - 4.0).abs() < 1e-6 && (c.watts[0] - 42.5).abs() < 1e-12);
    assert!(c.notes.iter().any(|note| note.contains("0.001")), "{:?}", c.notes);
}

#[test]
fn limits_memory_and_air_are_not_taken_for_the_device() {
    let text = rows(
        "Time,PowerCap,Power (W),Ambient (C),Temperature (C),memory.temp,temperature.gpu.tlimit,Frequency,GPU Utilization (%)",
        |i| format!("{i},30000,{}.5,21,{},99,33,{},100", 40 + i, 50 + i, 210 + i),
    );
    let log = ThermalLog::parse(&text).expect("read");
    assert_eq!((log.watts[2], log.celsius[2]), (42.5, 52.0));
    assert_eq!((log.ambient.as_ref().expect("there")[0], log.cap.as_ref().expect("there")[0]), (21.0, 30.0));
    assert_eq!(log.clock.as_ref().expect("there")[2], 212.0);
}

#[test]
fn what_cannot_be_read_is_said() {
    let parse = |text: &str| ThermalLog::parse(text).expect_err("refused").to_string();
    assert!(parse("").contains("empty"));
    assert!(parse("time,power\n1,2\n").contains("temperature"), "{}", parse("time,power\n1,2\n"));
    let holes = rows("time,power,temp", |i| format!("{i},{},50", if i < 25 { "[N/A]" } else { "40" }));
    assert!(parse(&holes).contains("only 5 of 30"), "{}", parse(&holes));
    let back = rows("time,power,temp", |i| format!("{},40,50", (i + 10) % 30));
    assert!(parse(&back).contains("time goes back"), "{}", parse(&back));
    let kelvin = rows("time,power,temp", |i| format!("{i},40,{}", 310 + i));
    assert!(parse(&kelvin).contains("check the unit"), "{}", parse(&kelvin));
    let few = rows("time,power,temp", |i| format!("{i},{},50", if i < 5 { "[N/A]" } else { "40" }));
    let log = ThermalLog::parse(&few).expect("most is readable");
    assert!(log.len() == 25 && log.notes.iter().any(|note| note.contains("5 of 30 rows")), "{:?}", log.notes);
}

#[test]
fn a_unit_is_converted_or_refused_but_never_ignored() {
    let parse = |heading: &str, row: &str| ThermalLog::parse(&rows(heading, |i| format!("{i};{row}")));
    for (heading, row) in [
        ("time_s;temperature [°F];power", "98.6;40"),
        ("time_s;temperature_f;power", "98.6;40"),
        ("time_s;temp;power", "98.6 F;40"),
        ("time_s;temp (deg C);power", "37;40"),
        ("time_s;temp (K);power", "310.15;40 W"),
        ("time_s;temp;power [kilowatt]", "37;0.04"),
        ("time_s;temp (GPU 0);board power (total)", "37;0.04 kW"),
    ] {
        let log = parse(heading, row).expect(heading);
        assert!((log.celsius[3] - 37.0).abs() < 1e-9 && (log.watts[3] - 40.0).abs() < 1e-9, "{heading} {row}: {log:?}");
    }
    for (heading, second) in [
        ("time [milliseconds];temp;power", 1e-3),
        ("time [h];temp;power", 3_600.0),
        ("time_min;temp;power", 60.0),
        ("time [min];temp;power", 60.0),
        ("elapsed_minutes;temp;power", 60.0),
        ("time (local);temp;power", 1.0),
    ] {
        let log = parse(heading, "37;40").expect(heading);
        assert!((log.seconds[3] - 3.0 * second).abs() < 1e-9, "{heading}: {:?}", &log.seconds[..4]);
    }
    for (heading, unit) in [
        ("time [fortnights];temp;power", "fortnights"),
        ("time_s;temp [°R];power", "°R"),
        ("time_s;temp_x;power", "x"),
        ("time_s;temp;power_kwh", "kwh"),
    ] {
        let refused = parse(heading, "37;40").expect_err(heading).to_string();
        assert!(refused.contains(&format!("{unit:?}")) && refused.contains("one of"), "{refused}");
    }
    let refused = parse("time_s;temp;power", "37 R;40").expect_err("no such unit").to_string();
    assert!(refused.contains("\"R\"") && refused.contains("°f"), "{refused}");
}

#[test]
fn a_decimal_comma_is_a_point_where_commas_divide_nothing() {
    let text = rows("time_s;temp;power", |i| format!("{i},5;35,8;40,25 W"));
    let log = ThermalLog::parse(&text).expect("read");
    assert_eq!((log.seconds[1], log.celsius[0], log.watts[0]), (1.5, 35.8, 40.25));
    for cell in ["\"35,8\"", "35abc"] {
        let text = rows("time_s,temp,power", |i| format!("{i},{cell},40"));
        let refused = ThermalLog::parse(&text).expect_err(cell).to_string();
        assert!(refused.contains("only 0 of 30"), "{refused}");
    }
}

#[test]
fn of_several_devices_one_is_read_and_the_others_are_named() {
    let text = rows("timestamp, index, power.draw [W], temperature.gpu", |i| {
        // Two cards in turn, a millisecond apart; the second is warmer.
        let (second, card) = (i / 2, i % 2);
        format!("2025/02/27 03:29:{second:02}.{:03}, {card}, {} W, {}", 500 + card, 40 + 50 * card, 50 + 20 * card)
    });
    let two = format!(
        "{text}{}",
        (30..60).fold(String::new(), |text, i| {
            format!("{text}2025/02/27 03:29:{:02}.{:03}, {}, 40 W, 50\n", i / 2, 500 + i % 2, i % 2)
        })
    );
    let log = ThermalLog::parse(&two).expect("read");
    assert!(log.len() == 30 && log.watts.iter().all(|&watts| watts == 40.0), "{log:?}");
    assert!(
        log.notes.iter().any(|note| note.contains("2 devices") && note.contains("file of its own")),
        "{:?}",
        log.notes
    );
    // A utilisation under the name of the device tells none apart, nor does a column that counts rows.
    let busy = rows("time_s,gpu,power,temp", |i| format!("{i},{},40,50", if (5..20).contains(&i) { 100 } else { 0 }));
    assert_eq!(ThermalLog::parse(&busy).expect("read").len(), 30);
    let counted = rows("index,time_s,power,temp", |i| format!("{i},{i},40,50"));
    assert_eq!(ThermalLog::parse(&counted).expect("read").len(), 30);
}

#[test]
fn a_run_past_midnight_goes_on_and_rows_a_little_out_of_order_are_sorted() {
    let night = rows("Time;GPU Power [W];GPU Temperature [°C]", |i| {
        let second = 86_390 + 2 * i;
        format!("{:02}:{:02}:{:02}.250;40,5;50", second / 3600 % 24, second / 60 % 60, second % 60)
    });
    let log = ThermalLog::parse(&night).expect("read");
    assert!(log.seconds.windows(2).all(|pair| (pair[1] - pair[0] - 2.0).abs() < 1e-9), "{:?}", log.seconds);
    let swapped = rows("time_s,power,temp", |i| {
        format!(
            "{},40,{}",
            [i, i + 1, i - usize::from(i > 0)][match i {
                10 => 1,
                11 => 2,
                _ => 0,
            }],
            40 + i
        )
    });
    let log = ThermalLog::parse(&swapped).expect("read");
    assert!(log.seconds.windows(2).all(|pair| pair[1] > pair[0]) && log.celsius[10] == 51.0, "{log:?}");
    assert!(log.notes.iter().any(|note| note.contains("out of order")), "{:?}", log.notes);
}

#[test]
fn a_heading_behind_a_sign_with_blanks_between_its_cells_is_read() {
    let mut text = String::from("#Date       Time        gpu    pwr  gtemp  mtemp   sm   mem   mclk   pclk\n");
    text.push_str("#YYYYMMDD   HH:MM:SS    Idx      W      C      C    %     %    MHz    MHz\n");
    for i in 0..30 {
        text.push_str(&format!(
            " 20250227   03:29:{i:02}      0     {}     {}      -   90    30   9001   1800\n",
            40 + i,
            50 + i
        ));
    }
    let log = ThermalLog::parse(&text).expect("read");
    assert_eq!((log.len(), log.watts[2], log.celsius[3], log.seconds[5] - log.seconds[0]), (30, 42.0, 53.0, 5.0));
    assert_eq!(log.clock.as_ref().map(|clock| clock[0]), Some(1800.0));
    let blanks = rows("time_s power temp", |i| format!("{i} 40 {}", 50 + i));
    assert_eq!(ThermalLog::parse(&blanks).expect("read").celsius[4], 54.0);
}
