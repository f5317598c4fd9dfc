//! Small profiles and runs, written here.

use super::*;
use crate::cost::Span;
use crate::model::{ExpertShape, PublicModel};
use crate::units::{BytesPerSecond, Seconds};

fn model(experts: Option<ExpertShape>) -> PublicModel {
    PublicModel {
        name: "small".into(),
        layers: 3,
        hidden: 8,
        feed_forward: 16,
        heads: 2,
        kv_heads: 1,
        head_size: 4,
        vocabulary: 32,
        experts,
    }
}

const DENSE: &str = "tokens,layer,time_us\n1,embedding,5\n101,embedding,5\n1,layernorm,1\n101,layernorm,1\n1,qkv_proj,\
10\n101,qkv_proj,110\n1,rotary_emb,2\n101,rotary_emb,2\n1,o_proj,3\n101,o_proj,3\n1,gate_up_proj,20\n\
101,gate_up_proj,20\n1,act_fn,1\n101,act_fn,1\n1,down_proj,7\n101,down_proj,7\n1,final_layernorm,4\n\
101,final_layernorm,4\n";
const TAIL: &str = "layer,sequences,time_us\nlm_head,1,30\nlm_head,11,40\nsampler,1,6\nsampler,11,16\n";
const ATTENTION: &str = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,9\n0,0,1,32,9\n0,0,2,16,10\n\
0,0,2,32,12\n16,0,0,0,20\n16,16,0,0,24\n32,0,0,0,40\n32,16,0,0,48\n16,0,1,16,25\n16,0,1,32,26\n16,16,1,16,29\n\
16,16,1,32,30\n";

fn texts<'a>() -> ProfileTexts<'a> {
    ProfileTexts { dense: Some(DENSE), per_sequence: Some(TAIL), attention: Some(ATTENTION), ..Default::default() }
}

fn around() -> Assembly {
    Assembly::default()
}

fn decode(cached: u32) -> Span {
    Span { cached, tokens: 1, yields: true }
}

fn micros(time: Seconds) -> f64 {
    time.value() * 1e6
}

fn near(time: Seconds, expected: f64) {
    assert!((micros(time) - expected).abs() < 1e-6, "{} instead of {expected} us", micros(time));
}

#[test]
fn a_pass_is_every_layers_operators_once_norms_twice_and_the_ends_once() {
    let catalogue = Catalogue::read(ProfileMeta::default(), texts(), ProfileTexts::default()).expect("a profile");
    let profile = catalogue.assemble(&model(None), &around()).expect("a model without experts");
    // One decode at context 16: 2 norms, qkv, rope, o, gate-up, activation, down and attention in each of 3 layers.
    let layer = 2.0 + 10.0 + 2.0 + 3.0 + 20.0 + 1.0 + 7.0 + 9.0;
    near(profile.pass(&[decode(16)]), 5.0 + 4.0 + 3.0 * layer + 30.0 + 6.0);
    // Two: qkv at two tokens, attention of two, head and sampler at two sequences.
    let layer = layer + 1.0 + 1.0;
    near(profile.pass(&[decode(16), decode(16)]), 5.0 + 4.0 + 3.0 * layer + 31.0 + 7.0);
    // A chunk that yields nothing needs no head.
    let chunk = Span { cached: 16, tokens: 32, yields: false };
    near(profile.pass(&[chunk]), 5.0 + 4.0 + 3.0 * (2.0 + 41.0 + 2.0 + 3.0 + 20.0 + 1.0 + 7.0 + 48.0));
    assert!(catalogue.notes.is_empty(), "{:?}", catalogue.notes);
}

#[test]
fn a_step_is_padded_to_the_next_recorded_size() {
    let catalogue = Catalogue::read(ProfileMeta::default(), texts(), ProfileTexts::default()).expect("a profile");
    let assembly = Assembly { padded: vec![1, 2, 4], ..around() };
    let padded = catalogue.assemble(&model(None), &assembly).expect("a model");
    let plain = catalogue.assemble(&model(None), &around()).expect("a model");
    let three = [decode(16), decode(16), decode(16)];
    near(padded.pass(&three), micros(plain.pass(&three)) + 3.0);
    assert_eq!((padded.padded(3), padded.padded(4), padded.padded(5)), (4, 4, 5));
}

#[test]
fn an_unknown_operator_counts_once_in_every_layer_and_is_noted() {
    let dense = format!("{DENSE}1,qk_norm,2\n101,qk_norm,2\n1,shortcut,5\n101,shortcut,5\n");
    let more = ProfileTexts { dense: Some(&dense), ..texts() };
    let with = Catalogue::read(ProfileMeta::default(), more, ProfileTexts::default()).expect("a profile");
    let without = Catalogue::read(ProfileMeta::default(), texts(), ProfileTexts::default()).expect("a profile");
    let pass =
        |catalogue: &Catalogue| catalogue.assemble(&model(None), &around()).expect("a model").pass(&[decode(20)]);
    near(pass(&with), micros(pass(&without)) + 3.0 * 7.0);
    assert_eq!(with.notes.len(), 1);
    assert!(with.notes[0].contains("shortcut"));
}

#[test]
fn experts_take_the_place_of_the_feed_forward_where_a_layer_has_them() {
    let moe = "tokens,activated_experts,time_us\n1,2,10\n100,2,208\n1,4,20\n100,4,218\n";
    let with = ProfileTexts { moe: Some(moe), ..texts() };
    let catalogue = Catalogue::read(ProfileMeta::default(), with, ProfileTexts::default()).expect("a profile");
    let experts = |layers| model(Some(ExpertShape { count: 4, per_token: 2, layers }));
    let all = catalogue.assemble(&experts(3), &around()).expect("experts");
    let shared = 2.0 + 10.0 + 2.0 + 3.0 + 9.0;
    near(all.pass(&[decode(16)]), 9.0 + 3.0 * (shared + 10.0) + 36.0);
    // Two tokens reach 4 * (1 - 1/4) = 3 of 4 experts: half way between the rows of 2 and 4 at 2 tokens.
    let table = all.experts.as_ref().expect("experts");
    assert!((table.activated(2.0) - 3.0).abs() < 1e-12);
    near(table.at(2.0), f64::midpoint(12.0, 22.0));
    // In one layer of three they do not.
    let some = catalogue.assemble(&experts(2), &around()).expect("experts");
    near(some.pass(&[decode(16)]), 9.0 + 3.0 * shared + 2.0 * 10.0 + 28.0 + 36.0);
    // Without their number nothing can be said.
    let refused = catalogue.assemble(&model(None), &around()).expect_err("no number of experts");
    assert!(refused.to_string().contains("--model-config"), "{refused}");
}

#[test]
fn without_experts_in_every_layer_a_missing_feed_forward_is_named() {
    let attention_only: String = DENSE
        .lines()
        .filter(|line| !line.contains("gate_up") && !line.contains("act_fn") && !line.contains("down_proj"))
        .fold(String::new(), |all, line| all + line + "\n");
    let lacking = ProfileTexts { dense: Some(&attention_only), ..texts() };
    let catalogue = Catalogue::read(ProfileMeta::default(), lacking, ProfileTexts::default()).expect("a profile");
    assert!(catalogue.assemble(&model(None), &around()).is_err());
}

#[test]
fn a_group_takes_what_it_lacks_from_one_device_and_pays_for_its_messages() {
    let halves: String =
        DENSE.lines().filter(|line| !line.contains("norm")).fold(String::new(), |all, line| all + line + "\n");
    let own = ProfileTexts { dense: Some(&halves), ..texts() };
    let catalogue = Catalogue::read(ProfileMeta::default(), own, texts()).expect("norms of one device");
    assert_eq!(catalogue.notes.len(), 2);
    let link = Link { bandwidth: BytesPerSecond::of(1e6), latency: Seconds::of(1e-6) };
    let two = Assembly { tensor_parallel: 2, link: Some(link), ..around() };
    let (free, paid) = (Assembly { tensor_parallel: 2, ..around() }, two);
    let pass = |assembly: &Assembly| catalogue.assemble(&model(None), assembly).expect("a model").pass(&[decode(16)]);
    // Sums of 8 numbers of 2 bytes over 2 devices: 2 messages of 8 bytes at 1 byte/us and 1 us each, 7 times in a
    // pass; one message of half of 32 numbers for the head.
    near(pass(&paid), micros(pass(&free)) + 7.0 * 2.0 * (1.0 + 8.0) + 1.0 + 32.0);
}

#[test]
fn several_chunks_in_a_step_cost_what_their_work_is_worth() {
    let catalogue = Catalogue::read(ProfileMeta::default(), texts(), ProfileTexts::default()).expect("a profile");
    let profile = catalogue.assemble(&model(None), &around()).expect("a model");
    let chunk = |tokens, cached| Span { cached, tokens, yields: true };
    let together = profile.attention(&[chunk(16, 0), chunk(16, 0)]);
    let one = profile.attention(&[chunk(32, 0)]);
    let alone = profile.attention(&[chunk(16, 0)]);
    assert!(together < one && together >= alone, "{together} {one} {alone}");
    // One prompt cut in two pieces that share a step does the work of the whole.
    let pieces = profile.attention(&[chunk(16, 0), chunk(16, 16)]);
    assert!((micros(pieces) - micros(one)).abs() < 1e-9);
}

#[test]
fn uneven_decodes_go_a_share_of_the_way_to_the_longest_where_the_profile_says_so() {
    let fit = "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n0,n<=2,sr<=70%,kvB<=1k,kp=0,0.5,4\n\
        0,n<=8,sr<=70%,kvB<=1k,kp=0,0.25,4\n";
    let uneven = [decode(16), decode(32)];
    let read = |meta: ProfileMeta| {
        let with = ProfileTexts { skew_fit: Some(fit), ..texts() };
        let catalogue = Catalogue::read(meta, with, ProfileTexts::default()).expect("a profile");
        catalogue.assemble(&model(None), &around()).expect("a model").attention(&uneven)
    };
    // At the mean context of 24 two decodes take 11 us, at 32 they take 12.
    near(read(ProfileMeta::default()), 11.5);
    let off = ProfileMeta { skew: SkewMeta { enabled: Some(false), default: None }, ..ProfileMeta::default() };
    near(read(off), 11.0);
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let read = |texts| Catalogue::read(ProfileMeta::default(), texts, ProfileTexts::default()).map(|_| ());
    let message = |texts| read(texts).expect_err("a fault").to_string();
    assert!(message(ProfileTexts { attention: None, ..texts() }).contains("attention.csv is missing"));
    let text = message(ProfileTexts { dense: Some("layer,time_us\n"), ..texts() });
    assert_eq!(text, "dense.csv has no column \"tokens\"; its columns are layer, time_us");
    let text = message(ProfileTexts { dense: Some("layer,tokens,time_us\nqkv_proj,x,1\n"), ..texts() });
    assert_eq!(text, "dense.csv, line 2: \"x\" is not a count");
    let text = message(ProfileTexts { dense: Some("layer,tokens,time_us\nqkv_proj,1,-1\n"), ..texts() });
    assert!(text.contains("not between 0 and"), "{text}");
    assert!(
        message(ProfileTexts { dense: Some("layer,tokens,time_us\nqkv_proj,1,1\n"), ..texts() }).contains("o_proj")
    );
}

#[test]
fn rows_of_one_point_are_averaged() {
    let repeated = format!("{DENSE}1,o_proj,5\n");
    let with = ProfileTexts { dense: Some(&repeated), ..texts() };
    let catalogue = Catalogue::read(ProfileMeta::default(), with, ProfileTexts::default()).expect("a profile");
    near(catalogue.dense()["o_proj"].at(1.0), 4.0);
}

#[test]
fn an_engine_has_the_settings_that_are_stated_and_defaults_elsewhere() {
    let text = r#"{"model": "a/b", "engine_kwargs": {"max_num_seqs": 7, "tensor_parallel_size": 2},
        "kv_cache": {"num_kv_tokens": 1600}, "resolved_config": {"scheduler_config": {"async_scheduling": false},
        "compilation_config": {"cudagraph_mode": [2, 1], "cudagraph_capture_sizes": [4, 1, 2]}}}"#;
    let read = engine(text).expect("an engine");
    assert_eq!((read.model.as_str(), read.requests_max, read.tensor_parallel, read.blocks), ("a/b", 7, 2, Some(100)));
    assert_eq!((read.look_ahead, read.prefix_caching, read.step_tokens_max), (false, true, 2048));
    assert_eq!(read.graph_sizes, [1, 2, 4]);
    let eager = text.replace("\"max_num_seqs\": 7", "\"enforce_eager\": true");
    assert!(engine(&eager).expect("an engine").graph_sizes.is_empty());
    assert!(engine("[]").is_err());
    assert!(engine(r#"{"resolved_config": {"scheduler_config": {"policy": "priority"}}}"#).is_err());
}

#[test]
fn a_workload_and_a_run_are_read_line_by_line() {
    let text = "{\"input_toks\": 3, \"output_toks\": 2, \"arrival_time_ns\": 5}\n\n{\"sub_requests\": []}\n\
        {\"output_toks\": 1, \"arrival_time_ns\": 9.4, \"input_tok_ids\": [1, 2]}\n";
    let requests = workload(text).expect("a workload");
    let summary: Vec<_> = requests.iter().map(|r| (r.arrival_ns, r.prompt_tokens, r.output_tokens)).collect();
    assert_eq!(summary, [(5, 3, 2), (9, 2, 1)]);
    let refused = workload("{\"input_toks\": 3}\n").expect_err("no answer length");
    assert!(refused.to_string().starts_with("the workload, line 1"), "{refused}");
    let run = "{\"request_id\": \"bench-4\", \"output_toks\": 2, \"queued_ts\": 1.0, \"first_token_ts\": 2.0, \
        \"last_token_ts\": 3.0}\n{\"request_id\": \"lost\", \"queued_ts\": 1.0}\n";
    let measured = measured(run).expect("a run");
    assert_eq!(measured.iter().map(|m| (m.index, m.queued)).collect::<Vec<_>>(), [(4, 1.0)]);
}

#[test]
fn blocks_have_one_name_only_with_everything_before_them() {
    let request = |prompt: &[u32]| ReplayRequest {
        arrival_ns: 0,
        prompt_tokens: prompt.len() as u32,
        output_tokens: 1,
        prompt: prompt.to_vec(),
    };
    let names = prompt_names(&[request(&[1, 2, 3, 4, 5]), request(&[1, 2, 3, 4]), request(&[9, 9, 3, 4])], 2);
    assert_eq!(names[0], names[1]);
    assert_eq!(names[0].len(), 2);
    assert!(names[2].iter().all(|name| !names[0].contains(name)));
}

#[test]
fn another_simulators_prediction_is_read_past_its_list_of_tokens() {
    let text = "instance id,request id,output,latency,TTFT,TPOT,ITL\n0,5,3,9000000,3000000,3000000,\"[1, 2]\"\n\
        0,6,1,4000000,4000000,0,\"[]\"\n";
    let times = |ttft, tpot, latency| Times { ttft, tpot, latency };
    let expected = [(5, times(3.0, Some(3.0), 9.0)), (6, times(4.0, None, 4.0))];
    assert_eq!(other_prediction(text).expect("a table"), expected);
}

#[test]
fn a_link_is_stated_for_the_cluster_or_for_its_node() {
    assert_eq!(config_link(r#"{"link_bw": 16, "link_latency": 1000}"#), Some((16.0, 1000.0)));
    let nested = r#"{"nodes": [{"link_bw": [32, 8], "link_latency": [500]}]}"#;
    assert_eq!(config_link(nested), Some((32.0, 500.0)));
    assert_eq!((config_link(r#"{"link_bw": 16}"#), config_link("x")), (None, None));
}

#[test]
fn a_profile_becomes_a_scenario_whose_device_takes_the_measured_times() {
    let moe = "tokens,activated_experts,time_us\n1,2,10\n100,2,208\n1,4,20\n100,4,218\n";
    for (moe, experts) in [(None, None), (Some(moe), Some(ExpertShape { count: 4, per_token: 2, layers: 2 }))] {
        let meta = ProfileMeta::read("hardware: RTX 4090\nmeasurement_iterations: 3\nvariant: bf16\n", 1);
        let catalogue =
            Catalogue::read(meta, ProfileTexts { moe, ..texts() }, ProfileTexts::default()).expect("a profile");
        let model = model(experts);
        let facts = DeviceFacts { memory: crate::units::Bytes(1 << 30), count: 2 };
        let imported = scenario(&catalogue, &model, facts).expect("a scenario");
        let mut none = |_, _: &str| Err(Vec::new());
        let read = crate::scenario::Scenario::parse(&imported.text, &mut none);
        let read = read.unwrap_or_else(|faults| panic!("{faults:?}\n{}", imported.text));
        let device = &read.devices.devices[0];
        assert_eq!((read.devices.devices.len(), device.name.starts_with("RTX-4090")), (2, true));
        let profile = &device.profiles[0];
        let pass = catalogue.assemble(&model, &Assembly::default()).expect("a pass");
        let step = |shape: &crate::cost::StepShape| profile.step(crate::ids::Layers::new(0, 3), 3, shape);
        let alone = step(&crate::cost::StepShape::decode(1, 16.0));
        near(alone, micros(pass.pass(&[decode(16)])));
        // As many as activate more and more of the experts.
        for decodes in [2, 3, 7, 20] {
            let together = step(&crate::cost::StepShape::decode(decodes, 16.0));
            near(together, micros(pass.pass(&vec![decode(16); decodes as usize])));
        }
        let chunk = Span { cached: 16, tokens: 16, yields: true };
        near(step(&crate::cost::StepShape::prefill(16, 16, true)), micros(pass.pass(&[chunk])));
    }
}
