//! Days of the Gregorian calendar.

/// Days from 1970-01-01 to a day, for any year. Years begin in March here, so that the leap day is the last of a year
/// (H. Hinnant, "chrono-compatible low-level date algorithms").
pub fn days_since_1970(year: i64, month: u32, day: u32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From March on, months take 31, 30, 31, 30, 31 days over and over; 719,468 days lie between 0000-03-01 and 1970.
    before + i64::from((153 * month + 2) / 5) + i64::from(day) - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_is_one_after_the_day_before() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let mut before = days_since_1970(1599, 12, 31);
        for year in 1600..2400 {
            let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(lengths) {
                for day in 1..=length {
                    let found = days_since_1970(year, month, day);
                    assert_eq!(found, before + 1, "{year}-{month}-{day}");
                    before = found;
                }
            }
        }
        assert_eq!(days_since_1970(1970, 1, 1), 0);
    }
}
