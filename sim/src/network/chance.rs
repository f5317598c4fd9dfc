//! What chance does to messages: jitter and loss.

use crate::random::Stream;
use isotherm_core::conditions::Spread;
use isotherm_core::units::Seconds;

/// Bytes of a packet, for loss: what fits an Ethernet frame.
pub const PACKET_BYTES: u64 = 1_500;

/// Draws a time from a distribution, from one number of the stream whatever the distribution, so that two scenarios
/// that differ in it meet the same luck.
#[must_use]
pub fn draw(spread: &Spread, stream: &mut Stream) -> Seconds {
    let unit = stream.unit();
    let seconds = match spread {
        Spread::Uniform { min, max } => min.value() + (max.value() - min.value()) * unit,
        Spread::Normal { mean, deviation } => {
            // The part below zero is cut off: what remains of the distribution function is from there to one.
            let below = normal_share(-mean.value() / deviation.value());
            mean.value() + deviation.value() * normal_quantile(below + (1.0 - below) * unit)
        }
        Spread::Lognormal { median, sigma } => median.value() * libm::exp(sigma * normal_quantile(unit)),
        Spread::Quantiles { quantiles } => {
            let right = quantiles.partition_point(|q| q.0 <= unit).clamp(1, quantiles.len().max(2) - 1);
            match (quantiles.get(right - 1), quantiles.get(right)) {
                (Some(&(a, from)), Some(&(b, to))) if b > a => {
                    from.value() + (to.value() - from.value()) * ((unit - a) / (b - a)).clamp(0.0, 1.0)
                }
                (Some(&(_, only)), _) => only.value(),
                _ => 0.0,
            }
        }
    };
    Seconds::new(seconds).unwrap_or(Seconds::ZERO).max(Seconds::ZERO)
}

/// What loss does to a message: bytes sent again, and rounds in which that happens; each round is noticed one round
/// trip after it was sent. Every packet is lost with this probability, independently, again and again.
#[must_use]
pub fn resent(bytes: u64, loss: f64, stream: &mut Stream) -> (u64, u32) {
    let (mut left, mut packets, mut rounds) = (bytes.div_ceil(PACKET_BYTES), 0, 0);
    // A loss close to one would go on and on; by then every packet was sent hundreds of times.
    while left > 0 && rounds < 1_000 {
        left = lost_of(left, loss, stream);
        packets += left;
        rounds += u32::from(left > 0);
    }
    // The last packet of a message is not full, but which packets are lost is not kept.
    ((packets * PACKET_BYTES.min(bytes.max(1))), rounds)
}

/// How many of `count` packets are lost: the gaps between lost ones are geometric (Devroye, "Non-Uniform Random Variate
/// Generation", 1986, section X.4.3), so that the work is by the number lost.
fn lost_of(count: u64, loss: f64, stream: &mut Stream) -> u64 {
    if loss <= 0.0 {
        return 0;
    }
    let kept = libm::log1p(-loss);
    let (mut at, mut lost) = (0.0, 0);
    loop {
        at += libm::floor(libm::log1p(-stream.unit()) / kept) + 1.0;
        if at > count as f64 {
            return lost;
        }
        lost += 1;
    }
}

/// Share of the standard normal distribution below `x`.
fn normal_share(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// Quantile of the standard normal distribution: algorithm AS 241, PPND16 (Wichura, "The percentage points of the
/// normal distribution", Applied Statistics 37, 1988), right to about 1e-16 relative. The ends are those of the
/// smallest and largest number that a stream gives.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 8] = [
        3.387_132_872_796_366_6,
        1.331_416_678_917_843_8e2,
        1.971_590_950_306_551_3e3,
        1.373_169_376_550_946e4,
        4.592_195_393_154_987e4,
        6.726_577_092_700_87e4,
        3.343_057_558_358_813e4,
        2.509_080_928_730_122_7e3,
    ];
    const B: [f64; 8] = [
        1.0,
        4.231_333_070_160_091e1,
        6.871_870_074_920_579e2,
        5.394_196_021_424_751e3,
        2.121_379_430_158_659_7e4,
        3.930_789_580_009_271e4,
        2.872_908_573_572_194_3e4,
        5.226_495_278_852_854e3,
    ];
    const C: [f64; 8] = [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        2.417_807_251_774_506e-1,
        2.272_384_498_926_918_4e-2,
        7.745_450_142_783_414e-4,
    ];
    const D: [f64; 8] = [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        6.897_673_349_851e-1,
        1.481_039_764_274_800_8e-1,
        1.519_866_656_361_645_7e-2,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ];
    const E: [f64; 8] = [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        2.965_605_718_285_048_7e-1,
        2.653_218_952_657_612_4e-2,
        1.242_660_947_388_078_4e-3,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ];
    const F: [f64; 8] = [
        1.0,
        5.998_322_065_558_88e-1,
        1.369_298_809_227_358e-1,
        1.487_536_129_085_061_5e-2,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ];
    let ratio = |top: &[f64; 8], bottom: &[f64; 8], x: f64| {
        let horner = |c: &[f64; 8]| c.iter().rev().fold(0.0, |sum, &next| sum * x + next);
        horner(top) / horner(bottom)
    };
    let p = p.clamp(1e-17, 1.0 - 1.2e-16);
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(&A, &B, 0.180_625 - q * q);
    }
    let r = libm::sqrt(-libm::log(if q < 0.0 { p } else { 1.0 - p }));
    let tail = if r <= 5.0 { ratio(&C, &D, r - 1.6) } else { ratio(&E, &F, r - 5.0) };
    if q < 0.0 { -tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: f64) -> Seconds {
        Seconds::of(value)
    }

    #[test]
    fn the_quantile_undoes_the_distribution_function() {
        for step in 1..2_000 {
            let p = f64::from(step) / 2_000.0;
            assert!((normal_share(normal_quantile(p)) / p - 1.0).abs() < 1e-13, "{p}");
        }
        // The two values that Wichura prints.
        assert!((normal_quantile(0.25) + 0.674_489_750_196_081_7).abs() < 1e-15);
        assert!((normal_quantile(1e-3) + 3.090_232_306_167_813_5).abs() < 1e-14);
        for tail in [1e-6, 1e-9, 1e-12] {
            assert!((normal_share(normal_quantile(tail)) / tail - 1.0).abs() < 1e-9, "{tail}");
        }
    }

    /// Mean and standard deviation of many draws.
    fn moments(spread: &Spread) -> (f64, f64) {
        let mut stream = Stream::new(3, 0, "moments");
        let draws: Vec<f64> = (0..200_000).map(|_| draw(spread, &mut stream).value()).collect();
        assert!(draws.iter().all(|d| *d >= 0.0));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / draws.len() as f64;
        (mean, variance.sqrt())
    }

    fn near(found: (f64, f64), mean: f64, deviation: f64) {
        // 200 000 draws: five standard errors of the mean are 1.1 % of the deviation.
        assert!((found.0 - mean).abs() < 0.012 * deviation, "{found:?} {mean}");
        assert!((found.1 / deviation - 1.0).abs() < 0.02, "{found:?} {deviation}");
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let uniform = Spread::Uniform { min: seconds(1.0), max: seconds(4.0) };
        near(moments(&uniform), 2.5, 3.0 / 12.0_f64.sqrt());
        // Far from zero nothing is cut off.
        near(moments(&Spread::Normal { mean: seconds(10.0), deviation: seconds(1.0) }), 10.0, 1.0);
        // Cut in the middle, half a normal distribution: mean sqrt(2 / pi), variance 1 - 2 / pi.
        let pi = std::f64::consts::PI;
        let half = Spread::Normal { mean: seconds(0.0), deviation: seconds(1.0) };
        near(moments(&half), (2.0 / pi).sqrt(), (1.0 - 2.0 / pi).sqrt());
        let sigma: f64 = 0.4;
        let lognormal = Spread::Lognormal { median: seconds(2.0), sigma };
        let (mean, square) = (2.0 * libm::exp(sigma * sigma / 2.0), libm::exp(sigma * sigma));
        near(moments(&lognormal), mean, mean * (square - 1.0).sqrt());
        // Half of the messages uniform in 0 to 1, the rest in 1 to 5: mean (0.5 + 3) / 2.
        let quantiles = vec![(0.0, seconds(0.0)), (0.5, seconds(1.0)), (1.0, seconds(5.0))];
        let second = (1.0 / 3.0 + 31.0 / 3.0) / 2.0;
        near(moments(&Spread::Quantiles { quantiles }), 1.75, (second - 1.75_f64 * 1.75).sqrt());
    }

    #[test]
    fn packets_are_sent_again_as_often_as_they_are_lost() {
        let mut stream = Stream::new(5, 0, "loss");
        let (packets, loss, runs) = (1_000, 0.2, 2_000);
        let (mut bytes, mut rounds) = (0, 0);
        for _ in 0..runs {
            let (again, times) = resent(packets * PACKET_BYTES, loss, &mut stream);
            bytes += again;
            rounds += u64::from(times);
        }
        // Each packet is sent again loss / (1 - loss) times on average.
        let mean = bytes as f64 / runs as f64 / (packets * PACKET_BYTES) as f64;
        assert!((mean / 0.25 - 1.0).abs() < 0.01, "{mean}");
        // The rounds are one less than the greatest of a thousand geometric numbers: P(rounds < n) = (1 - loss^n)^1000.
        let tail = |n: i32| 1.0 - libm::pow(1.0 - libm::pow(0.2, f64::from(n)), 1_000.0);
        let expected: f64 = (1..40).map(tail).sum();
        assert!((rounds as f64 / runs as f64 / expected - 1.0).abs() < 0.02, "{rounds} {expected}");
        assert_eq!(resent(10, 0.0, &mut stream), (0, 0));
        assert_eq!(resent(0, 0.5, &mut stream), (0, 0));
    }
}
