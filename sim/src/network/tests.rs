use super::*;
use crate::SimulateError;
use isotherm_core::artefact::Header;
use isotherm_core::conditions::{Between, Conditions, CrossTraffic, LinkCondition, Place, Spread};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind, SharedCapacity};
use isotherm_core::units::BytesPerSecond;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn link(from: &str, to: &str, seconds: f64, bytes_per_second: f64, groups: &[&str]) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Socket,
        latency_seconds: Some(Figure::declared(Seconds::of(seconds), "test")),
        bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bytes_per_second), "test")),
        tokens_per_second: None,
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
    }
}

fn file(links: Vec<Link>, trunk: f64) -> DevicesFile {
    DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices: ["a", "b", "c", "d"].map(|n| Device::named(n, "h", DeviceKind::Gpu)).to_vec(),
        junctions: vec!["left".into(), "right".into(), "other".into()],
        links,
        groups: vec![SharedCapacity {
            name: "trunk".into(),
            bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(trunk), "test"),
        }],
        co_run: Vec::new(),
        coordinator: None,
    }
}

/// `a` and `b` reach `c` and `d` through two switches and a trunk; a slower way leads around the trunk.
fn graph() -> DeviceGraph {
    let links = vec![
        link("a", "left", 1.0, 10.0, &[]),
        link("b", "left", 1.0, 10.0, &[]),
        link("left", "right", 2.0, 100.0, &["trunk"]),
        link("right", "c", 1.0, 10.0, &[]),
        link("right", "d", 1.0, 10.0, &[]),
        link("left", "other", 9.0, 5.0, &[]),
        link("other", "right", 9.0, 5.0, &[]),
    ];
    DeviceGraph::new(file(links, 12.0)).expect("valid")
}

const SECOND: u64 = 1_000_000_000;
const SIZES: (Bytes, Bytes) = (Bytes(1), Bytes(100_000));

fn layout<'a>(graph: &'a DeviceGraph, lanes: &[(&'a str, &'a str)], conditions: &Conditions) -> Layout<'a> {
    let lanes = lanes.iter().map(|&ends| (Some(ends), SIZES)).collect();
    // Links may fail, so that every lane takes the general way, unless a test says otherwise.
    let unsteady = if conditions.sharing == Sharing::Fair { BTreeSet::from([LinkId(2)]) } else { BTreeSet::new() };
    Layout::new(graph, lanes, conditions, &unsteady).expect("valid")
}

/// Sends (second, lane, bytes) in order and returns when each arrives, in seconds.
fn arrivals(network: &mut Network<'_, usize>, sends: &[(f64, LaneId, u64)]) -> Vec<f64> {
    let mut found = vec![f64::NAN; sends.len()];
    let mut open = sends.iter().enumerate().peekable();
    loop {
        for delivery in network.take_arrived() {
            found[delivery.message] = delivery.at.seconds().value();
        }
        let sent = open.peek().map(|(_, send)| SimTime((send.0 * 1e9) as u64));
        match (network.due(), sent) {
            (Some(due), sent) if sent.is_none_or(|sent| due <= sent) => network.wake(due),
            (_, Some(at)) => {
                let (number, &(_, lane, bytes)) = open.next().expect("peeked");
                assert!(network.send(at, lane, Bytes(bytes), number), "no way for message {number}");
            }
            (None, None) => return found,
            (Some(_), None) => unreachable!("what is due comes first"),
        }
    }
}

#[test]
fn a_message_alone_takes_the_time_of_its_path_whichever_way_links_are_shared() {
    let graph = graph();
    let path = graph.path("a", "c", Bytes(100)).expect("a way");
    assert_eq!(path.time(Bytes(100)), Seconds::of(14.0));
    for sharing in [Sharing::Fair, Sharing::Fifo] {
        let layout = layout(&graph, &[("a", "c")], &Conditions { sharing, ..Conditions::default() });
        let mut network = Network::new(&layout, 0, 0);
        assert_eq!(arrivals(&mut network, &[(0.0, 0, 100), (20.0, 0, 100)]), [14.0, 34.0]);
        assert_eq!(network.moved()[..5], [200, 0, 200, 200, 0]);
    }
}

#[test]
fn messages_of_one_lane_drain_one_after_another() {
    let graph = graph();
    for sharing in [Sharing::Fair, Sharing::Fifo] {
        let layout = layout(&graph, &[("a", "c")], &Conditions { sharing, ..Conditions::default() });
        let mut network = Network::new(&layout, 0, 0);
        let sends = [(0.0, 0, 100), (0.0, 0, 100), (0.0, 0, 100)];
        assert_eq!(arrivals(&mut network, &sends), [14.0, 24.0, 34.0]);
    }
}

#[test]
fn a_lane_apart_settles_each_message_when_it_is_sent_as_the_general_way_does() {
    let graph = graph();
    let lanes = || vec![(Some(("a", "c")), SIZES), (Some(("left", "other")), SIZES)];
    let steady = Layout::new(&graph, lanes(), &Conditions::default(), &BTreeSet::new()).expect("valid");
    assert!(steady.lanes().iter().all(|lane| lane.apart));
    let general = Layout::new(&graph, lanes(), &Conditions::default(), &BTreeSet::from([LinkId(0)])).expect("valid");
    assert!(!general.lanes().iter().any(|lane| lane.apart));
    let sends: Vec<(f64, LaneId, u64)> = (0..40).map(|i| (f64::from(i) * 3.1, i % 2, 7 + u64::from(i * i))).collect();
    let (one, two) = (Network::new(&steady, 0, 0), Network::new(&general, 0, 0));
    let pairs = arrivals(&mut { one }, &sends).into_iter().zip(arrivals(&mut { two }, &sends));
    for (apart, general) in pairs {
        assert!((apart - general).abs() <= 2e-9, "{apart} {general}");
    }
}

#[test]
fn lanes_share_the_trunk_fairly_from_where_they_meet_to_where_they_part() {
    let graph = graph();
    let layout = layout(&graph, &[("a", "c"), ("b", "d")], &Conditions::default());
    let mut network = Network::new(&layout, 0, 0);
    // By hand: alone at 10 bytes per second for 5 s; then both at 6. The first has 50 left and is done after 50 / 6 s;
    // the second has 100 - 50 left then and goes on alone at 10.
    let meet = 5.0 + 50.0 / 6.0;
    let found = arrivals(&mut network, &[(0.0, 0, 100), (5.0, 1, 100)]);
    assert!((found[0] - (meet + 4.0)).abs() < 1e-8 && (found[1] - (meet + 5.0 + 4.0)).abs() < 1e-8, "{found:?}");
}

#[test]
fn served_in_turn_the_second_waits_for_the_trunk() {
    let graph = graph();
    let fifo = Conditions { sharing: Sharing::Fifo, ..Conditions::default() };
    let layout = layout(&graph, &[("a", "c"), ("b", "d")], &fifo);
    let mut network = Network::new(&layout, 0, 0);
    // The trunk takes 100 bytes in 100 / 12 s from second 1 on; the second head waits for it.
    let found = arrivals(&mut network, &[(0.0, 0, 100), (0.0, 1, 100)]);
    assert!((found[0] - 14.0).abs() < 1e-8 && (found[1] - (1.0 + 100.0 / 12.0 + 10.0 + 3.0)).abs() < 1e-8, "{found:?}");
}

#[test]
fn constant_cross_traffic_takes_its_share_of_a_link_and_of_a_group() {
    let graph = graph();
    let taken = |place| CrossTraffic { place, share: 0.5, on_off: None };
    for (place, rate) in [
        (Place::Link(Between { from: "a".into(), to: "left".into() }), 5.0),
        (Place::Group("trunk".into()), 6.0),
        (Place::Link(Between { from: "b".into(), to: "left".into() }), 10.0),
    ] {
        for sharing in [Sharing::Fair, Sharing::Fifo] {
            let conditions = Conditions { sharing, cross_traffic: vec![taken(place.clone())], ..Conditions::default() };
            let layout = layout(&graph, &[("a", "c")], &conditions);
            let found = arrivals(&mut Network::new(&layout, 0, 0), &[(0.0, 0, 300)]);
            assert!((found[0] - (4.0 + 300.0 / rate)).abs() < 1e-8, "{sharing:?} {place:?}: {found:?}");
        }
    }
}

#[test]
fn traffic_that_comes_and_goes_takes_its_long_run_share() {
    let graph = graph();
    let place = Place::Link(Between { from: "a".into(), to: "left".into() });
    let on_off = Some((Seconds::of(2.0), Seconds::of(6.0)));
    let conditions =
        Conditions { cross_traffic: vec![CrossTraffic { place, share: 0.8, on_off }], ..Conditions::default() };
    let layout = layout(&graph, &[("a", "c")], &conditions);
    // On for a quarter of the time: 1 - 0.8 / 4 of the bandwidth is left. 40 000 s see 5 000 turns on.
    let mut network = Network::new(&layout, 1, 0);
    assert!(network.send(SimTime::ZERO, 0, Bytes(320_000), 0));
    let at = loop {
        let due = network.due().expect("traffic never ends");
        network.wake(due);
        if let Some(delivery) = network.take_arrived().next() {
            break delivery.at.seconds().value();
        }
    };
    assert!((at / 40_000.0 - 1.0).abs() < 0.02, "{at}");
}

#[test]
fn what_nobody_can_serve_in_turn_is_refused() {
    let graph = graph();
    let fifo = Conditions { sharing: Sharing::Fifo, ..Conditions::default() };
    let lane = || vec![(Some(("a", "c")), SIZES)];
    let refused = Layout::new(&graph, lane(), &fifo, &BTreeSet::from([LinkId(0)]));
    assert!(matches!(refused, Err(SimulateError::ChangingFifo)));
    let nowhere = Place::Link(Between { from: "c".into(), to: "a".into() });
    let traffic = vec![CrossTraffic { place: nowhere, share: 0.1, on_off: None }];
    let refused = Layout::new(&graph, lane(), &Conditions { cross_traffic: traffic, ..fifo }, &BTreeSet::new());
    assert!(matches!(refused, Err(SimulateError::UnknownLink { .. })));
}

#[test]
fn a_lost_link_sends_messages_around_and_they_begin_again() {
    let graph = graph();
    let layout = layout(&graph, &[("a", "c")], &Conditions::default());
    let mut network = Network::new(&layout, 0, 0);
    assert!(network.send(SimTime::ZERO, 0, Bytes(100), 0));
    network.degrade(SimTime(4 * SECOND), LinkId(2), 0.0);
    // Around the trunk: latency 1 + 9 + 9 + 1, 5 bytes per second, all 100 bytes again.
    let due = network.due().expect("it goes on");
    assert_eq!(due, SimTime(24 * SECOND));
    network.wake(due);
    assert_eq!(network.take_arrived().next().expect("arrives").at, SimTime(44 * SECOND));
}

#[test]
fn a_message_without_a_way_waits_for_the_repair_and_a_slowed_link_takes_longer() {
    let graph = graph();
    let layout = layout(&graph, &[("a", "c")], &Conditions::default());
    let mut network = Network::new(&layout, 0, 0);
    assert!(network.send(SimTime::ZERO, 0, Bytes(100), 0));
    network.degrade(SimTime(5 * SECOND), LinkId(0), 0.0);
    assert_eq!((network.due(), network.connected(0)), (None, false));
    network.degrade(SimTime(30 * SECOND), LinkId(0), 1.0);
    assert!(network.connected(0));
    assert_eq!(network.due(), Some(SimTime(40 * SECOND)));
    // A quarter of the bandwidth from 32 s on, when 80 bytes are left: 32 s more.
    network.degrade(SimTime(32 * SECOND), LinkId(0), 0.25);
    assert_eq!(network.due(), Some(SimTime(64 * SECOND)));
    network.clear(SimTime(33 * SECOND), 0);
    assert_eq!(network.due(), None);
}

#[test]
fn jitter_delays_and_never_reorders() {
    let graph = graph();
    let between = Between { from: "a".into(), to: "left".into() };
    let jitter = Some(Spread::Uniform { min: Seconds::of(1.0), max: Seconds::of(30.0) });
    let links = vec![LinkCondition { link: between, jitter, loss: None }];
    for sharing in [Sharing::Fair, Sharing::Fifo] {
        let layout =
            layout(&graph, &[("a", "c")], &Conditions { sharing, links: links.clone(), ..Conditions::default() });
        let sends: Vec<(f64, LaneId, u64)> = (0..200).map(|i| (f64::from(i) * 11.0, 0, 100)).collect();
        let found = arrivals(&mut Network::new(&layout, 3, 0), &sends);
        assert!(found.windows(2).all(|pair| pair[0] <= pair[1]));
        let late: Vec<f64> = found.iter().zip(&sends).map(|(at, send)| at - send.0 - 14.0).collect();
        assert!(late.iter().all(|late| (1.0..=30.0 + 1e-6).contains(late)), "{late:?}");
        assert_eq!(found, arrivals(&mut Network::new(&layout, 3, 0), &sends));
        assert_ne!(found, arrivals(&mut Network::new(&layout, 3, 1), &sends));
    }
}

#[test]
fn lost_packets_drain_again_and_cost_a_round_trip() {
    let graph = graph();
    let between = Between { from: "left".into(), to: "right".into() };
    let links = vec![LinkCondition { link: between, jitter: None, loss: Some(0.5) }];
    let layout = layout(&graph, &[("a", "c")], &Conditions { links, ..Conditions::default() });
    let mut network = Network::new(&layout, 3, 0);
    let found = arrivals(&mut network, &[(0.0, 0, 15_000)]);
    // Ten packets of 1500 bytes; each one sent again adds 150 s, each round two latencies of 4 s.
    let again = (network.moved()[0] - 15_000) / 1_500;
    assert!(again > 3, "{again}");
    let rounds = (found[0] - 4.0 - 1_500.0 - 150.0 * again as f64) / 8.0;
    assert!((rounds - rounds.round()).abs() < 1e-6 && (1.0..=again as f64).contains(&rounds.round()), "{rounds}");
}

/// Positions and sizes, stepped through with rates from a plain reading of max-min fairness: no event, no closed form.
fn stepped(
    lanes: &[Vec<usize>],
    capacity: &[f64],
    latency: &[f64],
    sends: &[(f64, LaneId, u64)],
    step: f64,
) -> Vec<f64> {
    let mut queues: Vec<Vec<(usize, f64)>> = vec![Vec::new(); lanes.len()];
    let mut found = vec![f64::NAN; sends.len()];
    let (mut now, mut next) = (0.0, 0);
    while next < sends.len() || queues.iter().any(|queue| !queue.is_empty()) {
        while next < sends.len() && sends[next].0 <= now + 1e-12 {
            queues[sends[next].1 as usize].push((next, sends[next].2 as f64));
            next += 1;
        }
        // Raise all rates together; whoever meets a full channel stays.
        let busy: Vec<usize> = (0..lanes.len()).filter(|&lane| !queues[lane].is_empty()).collect();
        let (mut rates, mut stay) = (vec![0.0; lanes.len()], vec![false; lanes.len()]);
        while busy.iter().any(|&lane| !stay[lane]) {
            let load = |c: usize, rates: &[f64]| -> f64 {
                busy.iter().filter(|&&lane| lanes[lane].contains(&c)).map(|&lane| rates[lane]).sum()
            };
            let room = |c: usize| {
                let count = busy.iter().filter(|&&lane| !stay[lane] && lanes[lane].contains(&c)).count();
                if count == 0 { f64::INFINITY } else { (capacity[c] - load(c, &rates)) / count as f64 }
            };
            let more = (0..capacity.len()).map(room).fold(f64::INFINITY, f64::min);
            busy.iter().filter(|&&lane| !stay[lane]).for_each(|&lane| rates[lane] += more);
            for &lane in &busy {
                stay[lane] |= lanes[lane].iter().any(|&c| load(c, &rates) >= capacity[c] * (1.0 - 1e-9));
            }
        }
        now += step;
        for &lane in &busy {
            let head = &mut queues[lane][0];
            head.1 -= rates[lane] * step;
            if head.1 <= 0.0 {
                found[head.0] = now + latency[lane];
                queues[lane].remove(0);
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(60) })]
    #[test]
    fn arrivals_are_those_of_a_fluid_in_small_steps(
        own in prop::collection::vec(2.0_f64..20.0, 4), trunk in 3.0_f64..25.0,
        mut sends in prop::collection::vec((0_u32..200, 0_u32..4, 1_u64..200), 1..14),
    ) {
        let ends = [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")];
        let links = vec![
            link("a", "left", 0.5, own[0], &[]),
            link("b", "left", 0.5, own[1], &[]),
            link("left", "right", 0.25, 100.0, &["trunk"]),
            link("right", "c", 1.0, own[2], &[]),
            link("right", "d", 1.0, own[3], &[]),
        ];
        sends.sort_by_key(|send| send.0);
        let sends: Vec<(f64, LaneId, u64)> = sends.iter().map(|s| (f64::from(s.0) * 0.25, s.1, s.2)).collect();
        let graph = DeviceGraph::new(file(links, trunk)).expect("valid");
        let layout = layout(&graph, &ends, &Conditions::default());
        let mut network = Network::new(&layout, 0, 0);
        let found = arrivals(&mut network, &sends);
        let capacity = [own[0], own[1], own[2], own[3], trunk];
        let lanes = [vec![0, 2, 4], vec![0, 3, 4], vec![1, 2, 4], vec![1, 3, 4]];
        let step = 1.0 / 256.0;
        let expected = stepped(&lanes, &capacity, &[1.75; 4], &sends, step);
        // Each end is late by at most a step, and so may be what waits for it.
        let slack = step * (sends.len() as f64 + 1.0) * 4.0;
        for (a, b) in found.iter().zip(&expected) {
            prop_assert!((a - b).abs() <= slack, "{found:?} {expected:?}");
        }
        // Every byte passes every channel of its way, and no more.
        let bytes = |lane: &dyn Fn(LaneId) -> bool| sends.iter().filter(|s| lane(s.1)).map(|s| s.2).sum::<u64>();
        let moved = [bytes(&|l| l < 2), bytes(&|l| l > 1), bytes(&|_| true), bytes(&|l| l % 2 == 0), bytes(&|l| l % 2 == 1)];
        prop_assert_eq!(&network.moved()[..5], &moved[..]);
        // The trunk cannot have carried all of it sooner than at full rate.
        let last = found.iter().copied().fold(0.0, f64::max);
        let least = bytes(&|_| true) as f64 / trunk + sends[0].0 + 1.75;
        prop_assert!(last >= least - 1e-6, "{last} {least}");
    }
}
