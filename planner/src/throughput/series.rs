//! Blocks of devices in series and side by side, nested, of the least price.
//!
//! A *piece* holds so many layers at a rate: a device that carries it; two pieces one after the other, of the same
//! rate; or two side by side, whose rates add to it. Pieces meet only where both their layers end, so what ends there
//! hands over everything and no partial inference is needed. Rates are whole parts of the rate of the plan, those of
//! devices rounded down, so that what a table over (layers, parts) finds is what devices can do.

use super::blocks::Yard;

/// Parts into which the rate of a plan is divided, unless less will do.
pub(crate) const PARTS: usize = 1000;

/// Devices and how they are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A device, by position of its type, and the layers it holds.
    Device(usize, usize),
    /// One after the other.
    Then(Box<Piece>, Box<Piece>),
    /// Side by side.
    Beside(Box<Piece>, Box<Piece>),
}

impl Piece {
    /// Counts the devices by type.
    pub fn count(&self, counts: &mut [u16]) {
        match self {
            Self::Device(t, _) => counts[*t] += 1,
            Self::Then(a, b) | Self::Beside(a, b) => {
                a.count(counts);
                b.count(counts);
            }
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Device(_, held) => *held,
            Self::Then(a, b) => a.layers() + b.layers(),
            Self::Beside(a, _) => a.layers(),
        }
    }

    /// Parts of a rate that it passes.
    pub fn passes(&self, holds: &Holds) -> usize {
        match self {
            Self::Device(t, held) => holds.parts[*t].get(*held).copied().map_or(0, usize::from),
            Self::Then(a, b) => a.passes(holds).min(b.passes(holds)),
            Self::Beside(a, b) => (a.passes(holds) + b.passes(holds)).min(holds.whole),
        }
    }

    /// The same with fewer layers, not none, still passing so many parts; none where that cannot be: a device with fewer
    /// layers may be slower.
    pub fn shorter(&self, by: usize, parts: usize, holds: &Holds) -> Option<Self> {
        if by == 0 {
            return Some(self.clone());
        }
        match self {
            Self::Device(t, held) => {
                let less = Self::Device(*t, held.checked_sub(by).filter(|&held| held > 0)?);
                (less.passes(holds) >= parts).then_some(less)
            }
            Self::Then(a, b) => {
                // Some of the one and the rest of the other.
                let (first, second) = (a.layers(), b.layers());
                (by.saturating_sub(second)..=by.min(first)).find_map(|of_first| {
                    let rest = by - of_first;
                    match (of_first == first, rest == second) {
                        (true, true) => None,
                        (true, false) => b.shorter(rest, parts, holds),
                        (false, true) => a.shorter(of_first, parts, holds),
                        (false, false) => {
                            let a = a.shorter(of_first, parts, holds)?;
                            Some(Self::Then(Box::new(a), Box::new(b.shorter(rest, parts, holds)?)))
                        }
                    }
                })
            }
            Self::Beside(a, b) => {
                let of_first = a.passes(holds).min(parts);
                let a = a.shorter(by, of_first, holds)?;
                Some(Self::Beside(Box::new(a), Box::new(b.shorter(by, parts - of_first, holds)?)))
            }
        }
    }

    /// Tells each device where its layers begin, the piece beginning at `start`; returns where it ends.
    pub fn lay(&self, start: usize, place: &mut impl FnMut(usize, usize, usize)) -> usize {
        match self {
            Self::Device(t, held) => {
                place(*t, start, start + held);
                start + held
            }
            Self::Then(a, b) => {
                let middle = a.lay(start, place);
                b.lay(middle, place)
            }
            Self::Beside(a, b) => {
                a.lay(start, place);
                b.lay(start, place)
            }
        }
    }
}

/// A piece that stands beside others: not itself made of pieces side by side, and as wide as its price allows.
#[derive(Debug, Clone, Copy)]
struct Lane {
    /// Parts of the rate that it passes.
    parts: usize,
    price: f32,
    made: Made,
}

/// How a lane is made.
#[derive(Debug, Clone, Copy)]
enum Made {
    /// A device, by position of its type.
    Device(usize),
    /// One piece after another: the layers of the first.
    Then(usize),
}

/// What each type of device passes with so many layers, in parts of a rate. Not always less with more of them: a piece that
/// is one device holds just as many as it has.
pub(crate) struct Holds {
    /// Parts of the whole rate.
    whole: usize,
    /// By type and layers; nothing at none.
    parts: Vec<Vec<u16>>,
}

impl Holds {
    /// Of the devices of a yard, the rate divided into so many parts: a table takes time as their square.
    pub fn new(yard: &Yard, rate: f64, whole: usize) -> Self {
        let of_rate = |held: f64| (((held / rate) * (1.0 + 1e-12)).min(1.0) * whole as f64).floor() as u16;
        let of_type = |t: usize| (0..=yard.layers).map(|held| of_rate(yard.rate_of(t, held))).collect();
        Self { whole, parts: (0..yard.types.len()).map(of_type).collect() }
    }
}

/// The cheapest pieces at given prices of devices.
pub(crate) struct Series {
    layers: usize,
    /// Parts of the whole rate.
    whole: usize,
    /// By layers and parts: what passes at least so much.
    price: Vec<f32>,
    /// By layers: the lanes that no narrower ones side by side undercut, narrowest first.
    lanes: Vec<Vec<Lane>>,
    /// Where lanes are rows of devices: by layers and parts, how the cheapest is made.
    rows: Option<Vec<u16>>,
}

/// In a table of rows: that one follows another, and the layers of the first; else the type of a device.
const THEN: u16 = 1 << 15;

/// Prices that differ by less are the same.
const NEAR: f32 = 1e-6;

impl Series {
    /// Of up to so many layers; a type without a price is left out.
    pub fn new(holds: &Holds, prices: &[Option<f64>], layers: usize) -> Self {
        Self::of(holds, prices, layers, false)
    }

    /// The same where what stands beside others is a row of devices, each of which passes all of it.
    pub fn rows(holds: &Holds, prices: &[Option<f64>], layers: usize) -> Self {
        Self::of(holds, prices, layers, true)
    }

    fn of(holds: &Holds, prices: &[Option<f64>], layers: usize, rows: bool) -> Self {
        let whole = holds.whole;
        let width = whole + 1;
        let table = (layers + 1) * width;
        let mut made = Self {
            layers,
            whole,
            price: vec![f32::INFINITY; table],
            lanes: vec![Vec::new(); layers + 1],
            rows: rows.then(|| vec![0; table]),
        };
        // What one lane costs, by layers and parts; of all layers only where lanes follow one another by themselves.
        let mut lanes = vec![f32::INFINITY; if rows { table } else { width }];
        for l in 1..=layers {
            let (before, rest) = made.price.split_at_mut(l * width);
            let (known, alone) = lanes.split_at_mut(if rows { l * width } else { 0 });
            let alone = &mut alone[..width];
            let first_of: &[f32] = if rows { known } else { before };
            let row = |of: usize| &first_of[of * width..(of + 1) * width];
            alone.fill(f32::INFINITY);
            for (t, of_type) in prices.iter().enumerate() {
                let Some(of_type) = of_type.map(|price| price as f32 + NEAR) else { continue };
                let parts = holds.parts[t].get(l).copied().map_or(0, usize::from);
                alone[1..=parts].iter_mut().for_each(|price| *price = price.min(of_type));
            }
            for first in 1..=l / 2 {
                for ((price, a), b) in alone.iter_mut().zip(row(first)).zip(row(l - first)) {
                    *price = price.min(a + b);
                }
            }
            let how = |parts: usize| {
                let device = |t: &usize| {
                    let fits = holds.parts[*t].get(l).is_some_and(|held| usize::from(*held) >= parts);
                    fits && prices[*t].is_some_and(|of_type| of_type as f32 + NEAR <= alone[parts])
                };
                (0..prices.len()).find(device).map(Made::Device).or_else(|| {
                    let sum = |first: usize| row(first)[parts] + row(l - first)[parts];
                    (1..=l / 2).find(|&first| sum(first) <= alone[parts]).map(Made::Then)
                })
            };
            let price = &mut rest[..width];
            for parts in 1..=whole {
                let wider = parts < whole && alone[parts + 1] <= alone[parts];
                if wider || alone[parts].is_infinite() {
                    continue;
                }
                if let Some(rows) = &mut made.rows {
                    // The narrower ones of the same price are made so too.
                    rows[l * width + parts] = match how(parts) {
                        Some(Made::Device(t)) => t as u16,
                        Some(Made::Then(first)) => THEN | first as u16,
                        None => continue,
                    };
                }
                if alone[parts] >= price[parts] - NEAR {
                    continue;
                }
                let Some(made_so) = how(parts) else { continue };
                let lane = Lane { parts, price: alone[parts], made: made_so };
                beside(price, lane);
                made.lanes[l].push(lane);
            }
            if let Some(rows) = &mut made.rows {
                for parts in (1..whole).rev().filter(|&parts| alone[parts + 1] <= alone[parts]) {
                    rows[l * width + parts] = rows[l * width + parts + 1];
                }
            }
        }
        made
    }

    /// A row of devices of the least price.
    fn row(&self, rows: &[u16], layers: usize, parts: usize) -> Piece {
        let how = rows[layers * (self.whole + 1) + parts];
        if how & THEN == 0 {
            return Piece::Device(usize::from(how), layers);
        }
        let first = usize::from(how & !THEN);
        Piece::Then(Box::new(self.row(rows, first, parts)), Box::new(self.row(rows, layers - first, parts)))
    }

    /// The least price of so many layers at so many parts of the rate.
    pub fn price(&self, layers: usize, parts: usize) -> f32 {
        self.price[layers * (self.whole + 1) + parts]
    }

    /// The cheapest piece of `layers` layers at the whole rate, where nothing that begins or ends it passes more than
    /// `most` parts.
    pub fn piece(&self, layers: usize, most: usize) -> Option<Piece> {
        if layers > self.layers {
            return None;
        }
        if most >= self.whole {
            return self.made(layers, self.whole);
        }
        self.rails(layers, most)?.made(self.whole)
    }

    /// The cheapest rails side by side for every number of parts, where none passes more than `most`.
    pub fn rails(&self, layers: usize, most: usize) -> Option<Rails<'_>> {
        if layers > self.layers {
            return None;
        }
        let row = &self.price[layers * (self.whole + 1)..][..=self.whole];
        let (mut price, mut last) = (row.to_vec(), vec![0; self.whole + 1]);
        // Of rails of one price only the widest is of use.
        let useful = |&x: &usize| row[x].is_finite() && (x == most || row[x + 1] > row[x]);
        let rails: Vec<usize> = (1..=most).filter(useful).collect();
        for x in most + 1..=self.whole {
            price[x] = f32::INFINITY;
            for &one in &rails {
                let sum = row[one] + price[x - one];
                if sum < price[x] {
                    (price[x], last[x]) = (sum, one);
                }
            }
        }
        Some(Rails { series: self, layers, most, price, last })
    }

    /// The cheapest piece of so many layers for so many parts of the rate.
    pub fn made(&self, layers: usize, parts: usize) -> Option<Piece> {
        let row = &self.price[layers * (self.whole + 1)..][..=self.whole];
        let lanes = &self.lanes[layers];
        let (mut left, mut made) = (parts, None);
        while left > 0 {
            let cost = |lane: &Lane| if lane.parts < left { lane.price + row[left - lane.parts] } else { lane.price };
            let lane = lanes.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
            let passed = lane.parts.min(left);
            let piece = match lane.made {
                Made::Device(t) => Piece::Device(t, layers),
                Made::Then(first) if let Some(rows) = &self.rows => {
                    let (a, b) = (self.row(rows, first, passed), self.row(rows, layers - first, passed));
                    Piece::Then(Box::new(a), Box::new(b))
                }
                Made::Then(first) => {
                    let (a, b) = (self.made(first, passed)?, self.made(layers - first, passed)?);
                    Piece::Then(Box::new(a), Box::new(b))
                }
            };
            made = Some(match made {
                None => piece,
                Some(others) => Piece::Beside(Box::new(others), Box::new(piece)),
            });
            left -= passed;
        }
        made
    }
}

/// Takes up a lane, as often as it is of use, beside those narrower ones of which `price` tells: the least price of what
/// passes so many parts at least.
fn beside(price: &mut [f32], lane: Lane) {
    let cheaper = |price: &mut f32, other: f32| *price = price.min(other);
    let narrow = (lane.parts + 1).min(price.len());
    price[1..narrow].iter_mut().for_each(|price| cheaper(price, lane.price));
    // By so many entries at a time none depends on another.
    let mut from = narrow;
    while from < price.len() {
        let to = (from + lane.parts).min(price.len());
        let (before, after) = price.split_at_mut(from);
        let rest = &before[from - lane.parts..];
        after[..to - from].iter_mut().zip(rest).for_each(|(price, rest)| cheaper(price, lane.price + rest));
        from = to;
    }
}

/// Rails side by side, none of which passes more than so many parts.
pub(crate) struct Rails<'a> {
    series: &'a Series,
    layers: usize,
    most: usize,
    /// By parts.
    price: Vec<f32>,
    last: Vec<usize>,
}

impl Rails<'_> {
    /// The least price of so many parts.
    pub fn price(&self, parts: usize) -> f32 {
        self.price[parts]
    }

    /// How the whole rate is best shared with others: the parts of these and the price of both.
    pub fn shared(&self, others: &Self) -> Option<(usize, f32)> {
        let whole = self.series.whole;
        let sums = (1..whole).map(|x| (x, self.price[x] + others.price[whole - x]));
        sums.filter(|(_, sum)| sum.is_finite()).reduce(|a, b| if b.1 < a.1 { b } else { a })
    }

    /// The rails for so many parts.
    pub fn made(&self, parts: usize) -> Option<Piece> {
        let (mut x, mut piece) = (parts, None);
        while x > 0 {
            let one = if x <= self.most { x } else { self.last[x] };
            if one == 0 {
                return None;
            }
            let next = self.series.made(self.layers, one)?;
            piece = Some(match piece {
                None => next,
                Some(piece) => Piece::Beside(Box::new(piece), Box::new(next)),
            });
            x -= one;
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throughput::blocks::Type;
    use crate::throughput::clip::Span;

    fn yard(speeds: &[(f64, usize)]) -> Yard {
        let spans = |&(speed, most): &(f64, usize)| -> Vec<Span> {
            let ends = [(false, false), (true, false), (false, true), (true, true)];
            let of = |held: usize| ends.map(|(first, last)| Span { held, first, last, rate: speed / held as f64 });
            (1..=most).flat_map(of).collect()
        };
        let kinds: Vec<Vec<Span>> = speeds.iter().map(spans).collect();
        let types = (0..speeds.len()).map(|kind| Type { site: 0, kind, count: 9 }).collect();
        Yard::new(12, types, &kinds, vec![vec![f64::INFINITY]], vec![vec![f64::INFINITY]])
    }

    /// What a piece carries, by the rates of its devices alone.
    fn carries(piece: &Piece, speeds: &[(f64, usize)]) -> f64 {
        match piece {
            Piece::Device(t, held) => speeds[*t].0 / *held as f64,
            Piece::Then(a, b) => carries(a, speeds).min(carries(b, speeds)),
            Piece::Beside(a, b) => carries(a, speeds) + carries(b, speeds),
        }
    }

    #[test]
    fn a_slow_device_beside_a_row_of_others_is_found_where_it_is_cheapest() {
        // At 10, four layers: a slow device carries 4 with all of them for 3, beside it two that carry 6 with two
        // layers each for 2 and 2. Three slow ones would be 9, four of the others one after the other 8.
        let speeds = [(12.0, 4), (16.0, 4)];
        let holds = Holds::new(&yard(&speeds), 10.0, PARTS);
        let piece = Series::new(&holds, &[Some(2.0), Some(3.0)], 4).piece(4, PARTS).expect("there is one");
        let mut counts = [0; 2];
        piece.count(&mut counts);
        assert_eq!(counts, [2, 1], "{piece:?}");
        assert!(carries(&piece, &speeds) >= 10.0 * (1.0 - 1e-9), "{piece:?}");
    }

    #[test]
    fn pieces_carry_what_they_are_asked_for_and_no_end_passes_more_than_it_may() {
        let speeds = [(12.0, 3), (30.0, 5), (7.0, 12)];
        let holds = Holds::new(&yard(&speeds), 10.0, PARTS);
        let series = Series::new(&holds, &[Some(1.0), Some(2.1), Some(0.7)], 12);
        for layers in 1..=12 {
            for most in [200, 400, PARTS] {
                let Some(piece) = series.piece(layers, most) else { continue };
                assert!(carries(&piece, &speeds) >= 10.0 * (1.0 - 1e-9), "{layers} {most} {piece:?}");
                assert_eq!(piece.lay(3, &mut |_, _, _| ()), 3 + layers);
                let mut beginning = 0;
                piece.lay(0, &mut |_, start, _| beginning += usize::from(start == 0));
                assert!(beginning * most >= PARTS, "{beginning} devices begin where each passes {most} at most");
            }
        }
    }

    #[test]
    fn the_cheapest_piece_is_what_enumeration_of_flat_rails_never_beats() {
        let speeds = [(12.0, 3), (30.0, 5)];
        let (holds, prices) = (Holds::new(&yard(&speeds), 10.0, PARTS), [1.0, 2.2]);
        let series = Series::new(&holds, &prices.map(Some), 6);
        for layers in 1..=6 {
            let piece = series.piece(layers, PARTS);
            let mut counts = [0; 2];
            piece.iter().for_each(|piece| piece.count(&mut counts));
            let price = f64::from(counts[0]) * prices[0] + f64::from(counts[1]) * prices[1];
            // One rail of a first kind and a second of any.
            for a in 0..=6_usize {
                for b in 0..=6_usize {
                    let holds_all = a + 3 * b >= layers;
                    let flat = a as f64 * prices[0] + b as f64 * prices[1];
                    assert!(piece.is_some() && (!holds_all || price <= flat + 1e-4), "{layers}: {price} and {flat}");
                }
            }
        }
    }

    #[test]
    fn a_shorter_piece_has_the_layers_it_should_have_and_passes_what_it_has_to_where_fewer_layers_may_be_slower() {
        // The second kind is slower with three layers than with four.
        let slow = |held: usize| if held == 3 { 2.0 } else { 30.0 / held as f64 };
        let ends = [(false, false), (true, false), (false, true), (true, true)];
        let of = |held: usize| ends.map(|(first, last)| Span { held, first, last, rate: slow(held) });
        let kinds: Vec<Vec<Span>> = vec![
            (1..=5)
                .flat_map(|held| ends.map(|(first, last)| Span { held, first, last, rate: 12.0 / held as f64 }))
                .collect(),
            (1..=5).flat_map(of).collect(),
        ];
        let types = (0..2).map(|kind| Type { site: 0, kind, count: 9 }).collect();
        let yard = Yard::new(12, types, &kinds, vec![vec![f64::INFINITY]], vec![vec![f64::INFINITY]]);
        let holds = Holds::new(&yard, 10.0, PARTS);
        let series = Series::new(&holds, &[Some(1.0), Some(1.3)], 12);
        let carries = |t: usize, held: usize| if t == 0 { 12.0 / held as f64 } else { slow(held) };
        fn rate(piece: &Piece, carries: &dyn Fn(usize, usize) -> f64) -> f64 {
            match piece {
                Piece::Device(t, held) => carries(*t, *held),
                Piece::Then(a, b) => rate(a, carries).min(rate(b, carries)),
                Piece::Beside(a, b) => rate(a, carries) + rate(b, carries),
            }
        }
        let (mut shortened, mut refused) = (0, 0);
        for layers in 1..=12 {
            for parts in [300, 700, PARTS] {
                let Some(piece) = series.made(layers, parts) else { continue };
                assert!(piece.passes(&holds) >= parts, "{piece:?}");
                for by in 0..layers {
                    let Some(less) = piece.shorter(by, parts, &holds) else {
                        refused += 1;
                        continue;
                    };
                    shortened += 1;
                    assert_eq!(less.layers(), layers - by, "{piece:?} by {by}: {less:?}");
                    assert_eq!(less.lay(0, &mut |_, _, _| ()), layers - by);
                    let enough = 10.0 * parts as f64 / PARTS as f64 * (1.0 - 1e-9);
                    assert!(rate(&less, &carries) >= enough, "{piece:?} by {by}: {less:?}");
                    let count = |piece: &Piece| {
                        let mut counts = [0; 2];
                        piece.count(&mut counts);
                        counts
                    };
                    assert!(count(&less).iter().zip(count(&piece)).all(|(less, had)| *less <= had));
                }
            }
        }
        assert!(shortened > 50 && refused > 0, "{shortened} shortened, {refused} refused");
    }

    /// Whether what stands beside others is a row of devices.
    fn is_flat(piece: &Piece, in_row: bool) -> bool {
        match piece {
            Piece::Device(..) => true,
            Piece::Then(a, b) => is_flat(a, true) && is_flat(b, true),
            Piece::Beside(a, b) => !in_row && is_flat(a, false) && is_flat(b, false),
        }
    }

    #[test]
    fn rows_side_by_side_are_flat_carry_what_they_are_asked_for_and_cost_what_enumeration_finds() {
        let (speeds, prices) = ([(12.0, 3), (30.0, 5), (7.0, 6)], [1.0, 2.2, 0.55]);
        let holds = Holds::new(&yard(&speeds), 10.0, PARTS);
        let series = Series::rows(&holds, &prices.map(Some), 7);
        for layers in 1..=7 {
            for parts in [170, 400, 690, PARTS] {
                let Some(piece) = series.made(layers, parts) else { continue };
                assert!(is_flat(&piece, false), "{piece:?}");
                assert!(carries(&piece, &speeds) >= 10.0 * parts as f64 / PARTS as f64 * (1.0 - 1e-9), "{piece:?}");
                let cost = |piece: &Piece| {
                    let mut counts = [0; 3];
                    piece.count(&mut counts);
                    counts.iter().zip(prices).map(|(&n, price)| f64::from(n) * price).sum::<f64>()
                };
                // Rows of all devices that hold the layers, each as wide as it is; then the cheapest side by side.
                let mut rows: Vec<(f64, f64)> = Vec::new();
                let mut open = vec![(0, f64::INFINITY, 0.0)];
                while let Some((held, rate, price)) = open.pop() {
                    if held == layers {
                        rows.push((rate, price));
                        continue;
                    }
                    for (&(speed, most), more) in speeds.iter().zip(prices) {
                        let own =
                            (1..=most.min(layers - held)).map(|k| (held + k, rate.min(speed / k as f64), price + more));
                        open.extend(own);
                    }
                }
                let width = |rate: f64| ((rate / 10.0 * (1.0 + 1e-12)).min(1.0) * PARTS as f64).floor() as usize;
                let mut least = vec![0.0; parts + 1];
                for x in 1..=parts {
                    let with = rows.iter().map(|&(rate, price)| price + least[x.saturating_sub(width(rate))]);
                    least[x] = with.fold(f64::INFINITY, f64::min);
                }
                assert!(
                    (cost(&piece) - least[parts]).abs() < 1e-3,
                    "{layers} {parts}: {piece:?}, not {}",
                    least[parts]
                );
                let any = Series::new(&holds, &prices.map(Some), 7).made(layers, parts).expect("no fewer pieces");
                assert!(cost(&any) <= cost(&piece) + 1e-3, "{any:?} and {piece:?}");
            }
        }
    }
}
