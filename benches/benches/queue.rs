//! The event queue against the binary heap of the standard library, both keeping the order (time, sequence).
//!
//! The hold model (Vaucher and Duval, CACM 1975): with a fixed number of pending events, take the next one and schedule
//! another after a random span. Run with `cargo bench --profile dev -p isotherm-benches --bench queue`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isotherm_core::units::{SimDuration, SimTime};
use isotherm_sim::queue::EventQueue;
use isotherm_sim::random::Stream;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

/// Takes of one measurement.
const HOLDS: usize = 100_000;
/// Longest span between an event and what it causes, in nanoseconds.
const SPAN_MAX: u32 = 1_000_000;

/// A payload of the size of the simulator's events.
type Event = [u32; 4];

fn spans(count: usize) -> Vec<u64> {
    let mut stream = Stream::new(1, 0, "spans");
    (0..count).map(|_| stream.between(0, SPAN_MAX).into()).collect()
}

fn hold_queue(queue: &mut EventQueue<Event>, spans: &[u64]) -> u64 {
    let mut sum = 0_u64;
    for &span in spans {
        if let Some((now, event)) = queue.pop() {
            sum = sum.wrapping_mul(31).wrapping_add(now.0 ^ u64::from(event[0]));
            queue.schedule(now + SimDuration(span), event);
        }
    }
    sum
}

type Heap = BinaryHeap<Reverse<(u64, u64, Event)>>;

fn hold_heap(heap: &mut Heap, mut seq: u64, spans: &[u64]) -> u64 {
    let mut sum = 0_u64;
    for &span in spans {
        if let Some(Reverse((now, _, event))) = heap.pop() {
            sum = sum.wrapping_mul(31).wrapping_add(now ^ u64::from(event[0]));
            heap.push(Reverse((now + span, seq, event)));
            seq += 1;
        }
    }
    sum
}

fn filled(pending: usize) -> (EventQueue<Event>, Heap) {
    let (mut queue, mut heap) = (EventQueue::new(), Heap::new());
    for (span, seq) in spans(pending).into_iter().zip(0_u32..) {
        queue.schedule(SimTime(span), [seq; 4]);
        heap.push(Reverse((span, seq.into(), [seq; 4])));
    }
    (queue, heap)
}

fn hold(c: &mut Criterion) {
    let spans = spans(HOLDS);
    let mut group = c.benchmark_group("hold");
    group.throughput(Throughput::Elements(HOLDS as u64));
    group.sample_size(20);
    for pending in [16_usize, 1 << 10, 1 << 16] {
        let (mut queue, mut heap) = filled(pending);
        let order = hold_queue(&mut queue, &spans);
        assert_eq!(order, hold_heap(&mut heap, pending as u64, &spans), "the two keep different orders");
        group.bench_with_input(BenchmarkId::new("event_queue", pending), &spans, |b, spans| {
            b.iter_batched_ref(
                || filled(pending).0,
                |queue| black_box(hold_queue(queue, spans)),
                BatchSize::LargeInput,
            );
        });
        group.bench_with_input(BenchmarkId::new("binary_heap", pending), &spans, |b, spans| {
            b.iter_batched_ref(
                || filled(pending).1,
                |heap| black_box(hold_heap(heap, pending as u64, spans)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, hold);
criterion_main!(benches);
