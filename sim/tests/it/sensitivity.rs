//! What a prediction hangs on, against figures moved by hand.

use crate::material::{Case, Costs, closed};
use isotherm_core::problem::Objective;
use isotherm_core::workload::replay::Replay;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::sensitivity::{ASSUMED, sensitivity, slowed};
use isotherm_sim::{Asked, Options, replay};

#[test]
fn a_figure_that_matters_stands_above_one_that_does_not_and_moves_the_value_as_by_hand() {
    let case = Case::chain(&[Costs::fixed(40.0), Costs::fixed(4.0)], 1, closed(1, 5, 1, 10));
    let mut problem = case.problem();
    let plan = case.plan(&problem);
    for (objective, metric) in [(Objective::Tpot, "tpot_seconds"), (Objective::Throughput, "tokens_per_second")] {
        problem.objective = objective;
        let found = sensitivity(&plan, &problem, Asked::Drawn(&case.workload), &Options::default()).expect("simulates");
        assert_eq!(found.metric, metric);
        // Each token takes 6 to get in, a step of 40, a hop of 4, a step of 4 and 6 back: 60 units, one after another.
        let by_hand = |units: f64| if objective == Objective::Tpot { units / 512.0 } else { 512.0 / units };
        let near = |value: f64, units: f64| (value / by_hand(units) - 1.0).abs() < 1e-6;
        let base = found.value.expect("answered");
        assert!(near(base, 60.0), "{base}");
        // The latency into d0 and out of d1 is 5, from d0 to d1 3; the bytes take a unit on each link.
        let expected = [
            ("step times of d0", 4.0),
            ("latency of d1 -> driver", 0.5),
            ("latency of driver -> d0", 0.5),
            ("step times of d1", 0.4),
            ("latency of d0 -> d1", 0.3),
        ];
        for (name, units) in expected {
            let influence = found.influences.iter().find(|influence| influence.input == name).expect(name);
            assert!(!influence.stated && (influence.share - ASSUMED).abs() < 1e-12, "{influence:?}");
            assert!(near(influence.low, 60.0 - units) && near(influence.high, 60.0 + units), "{influence:?}");
            // More time per step or way is more time per token, and fewer tokens per second.
            let rises = objective == Objective::Tpot;
            assert_eq!(influence.elasticity(base) > 0.0, rises, "{influence:?}");
        }
        // A bandwidth that is higher makes its unit shorter: the other sign.
        let wide = found.influences.iter().find(|i| i.input == "bandwidth of d0 -> d1").expect("a bandwidth");
        assert!(near(wide.low, 59.0 + 1.0 / 0.9) && near(wide.high, 59.0 + 1.0 / 1.1), "{wide:?}");
        assert_eq!(found.influences[0].input, "step times of d0");
        let place = |name: &str| found.influences.iter().position(|influence| influence.input == name);
        assert!(place("step times of d0") < place("step times of d1"));
        assert!(place("step times of d1") < place("bandwidth of d0 -> d1"));
    }
}

#[test]
fn a_recorded_load_and_another_policy_move_the_same_figures() {
    let case = Case::chain(&[Costs::fixed(40.0), Costs::fixed(4.0)], 1, closed(1, 5, 1, 10));
    let mut problem = case.problem();
    problem.objective = Objective::Tpot;
    let plan = case.plan(&problem);
    // Ten seconds apart, so that each request has the devices to itself.
    let load = "arrival,prompt_tokens,output_tokens\n0,1,10\n10,1,10\n20,1,10\n";
    let load = Replay::parse(load).expect("a load");
    let drawn = sensitivity(&plan, &problem, Asked::Drawn(&case.workload), &Options::default()).expect("simulates");
    let found = sensitivity(&plan, &problem, Asked::Recorded(&load), &Options::default()).expect("simulates");
    assert_eq!(found.influences.len(), drawn.influences.len());
    for (a, b) in found.influences.iter().zip(&drawn.influences) {
        assert_eq!(a.input, b.input);
        assert!((a.low / b.low - 1.0).abs() < 1e-6 && (a.high / b.high - 1.0).abs() < 1e-6, "{a:?} {b:?}");
    }
    // Under another policy it is that policy's figure that is moved.
    let options = Options { policy: PolicyName::Vllm, ..Options::default() };
    let found = sensitivity(&plan, &problem, Asked::Recorded(&load), &options).expect("simulates");
    let replayed = replay(&plan, &problem, &load, &options).expect("simulates").metrics["tpot_seconds"].mean;
    assert_eq!(found.value, Some(replayed));
    assert_ne!(found.value, drawn.value);
}

#[test]
fn a_problem_with_slower_steps_takes_as_much_longer_as_by_hand() {
    // Three quarters of the first stage's 40 hang on the token, in a table with knots at none and many.
    let first = Costs { step: 10.0, token: 30.0, ..Costs::fixed(0.0) };
    let case = Case::chain(&[first, Costs::fixed(4.0)], 1, closed(1, 5, 1, 10));
    let problem = case.problem();
    let plan = case.plan(&problem);
    let load = Replay::parse("arrival,prompt_tokens,output_tokens\n0,1,10\n10,1,10\n20,1,10\n").expect("a load");
    let tpot = |problem: &_| {
        replay(&plan, problem, &load, &Options::default()).expect("simulates").metrics["tpot_seconds"].mean
    };
    // Of 60 units for a token 44 are steps, all of one token each: they decode, whatever is said of prompts.
    let slow = slowed(&problem, 1.5, 3.0).expect("a problem");
    assert!((tpot(&slow) * 512.0 - 82.0).abs() < 1e-6, "{}", tpot(&slow) * 512.0);
    assert!((tpot(&slowed(&problem, 1.0, 1.0).expect("a problem")) - tpot(&problem)).abs() < 1e-12);
    // No time below zero makes a problem.
    assert!(slowed(&problem, -1.0, 1.0).is_none());
}
