//! Conversations written by templates of real and of hostile files.

use isotherm_runtime::model::chat::{ChatError, ChatTemplate, Message};
use isotherm_runtime::model::gguf::{Array, Gguf, Strings, Value, write};

use crate::material;

/// A file with this template and these tokens; the first is BOS, the second EOS.
fn file(template: Option<&str>, tokens: &[&str]) -> Gguf {
    let mut metadata = vec![
        ("tokenizer.ggml.tokens", Value::Array(Array::Texts(Strings::from_iter(tokens.iter().copied())))),
        ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ("tokenizer.ggml.eos_token_id", Value::U32(1)),
    ];
    metadata.extend(template.map(|template| ("tokenizer.chat_template", Value::Text(template.into()))));
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &[], &mut |_, _| Ok(())).expect("memory takes every byte");
    Gguf::from_bytes(bytes).expect("a sound container")
}

fn rendered(template: &str, messages: &[Message]) -> Result<String, ChatError> {
    ChatTemplate::from_gguf(&file(Some(template), &["<s>", "</s>"]))?.render(messages, true, None)
}

fn user(content: &str) -> Message {
    Message::new("user", content)
}

#[test]
fn the_real_template_writes_the_documented_form() {
    let Some(gguf) = material::real_model("the_real_template_writes_the_documented_form") else { return };
    let template = ChatTemplate::from_gguf(&gguf).expect("a sound template");
    assert!(template.is_from_file());
    let turns = [Message::new("system", "Be brief."), user("Hi"), Message::new("assistant", "Hello"), user("Bye")];
    assert_eq!(
        template.render(&turns, true, None).expect("a plain conversation"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello\
         <|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        template.render(&[user("Hi")], false, None).expect("a plain conversation"),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn a_file_without_a_template_gets_chatml_if_its_vocabulary_has_the_tokens() {
    let template = ChatTemplate::from_gguf(&file(None, &["<|im_start|>", "<|im_end|>"])).expect("ChatML");
    assert!(!template.is_from_file());
    assert_eq!(
        template.render(&[user("Hi")], true, None).expect("a plain conversation"),
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let own = template.render(&[Message::new("system", "S"), user("Hi")], false, None).expect("plain");
    assert_eq!(own, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    let none = ChatTemplate::from_gguf(&file(None, &["<s>", "</s>"]));
    assert!(matches!(none, Err(ChatError::NoTemplate)), "{none:?}");
}

#[test]
fn python_methods_block_whitespace_and_loop_controls_work_as_published_templates_expect() {
    // Written after the template of Llama 3: offsets, strip, joined set and the texts of special tokens.
    let template = "{% set loop_messages = messages %}\n{% for message in loop_messages %}\n    \
        {% set content = '<|h|>' + message['role'] + '<|e|>\n\n' + message['content'] | trim + '<|eot|>' %}\n    \
        {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\n{{ content }}{% endfor %}\n\
        {% if add_generation_prompt %}{{ '<|h|>assistant<|e|>\n\n' }}{% endif %}";
    let wanted = "<s><|h|>user<|e|>\n\nHi<|eot|><|h|>assistant<|e|>\n\n";
    assert_eq!(rendered(template, &[user("  Hi \n")]).expect("renders"), wanted);
    for (template, wanted) in [
        ("{{ ' a '.strip() }}|{{ 'ab'.startswith('a') }}|{{ 'a,b'.split(',')[-1] }}|{{ 'ab'.upper() }}", "a|True|b|AB"),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}", "1"),
        ("{{ messages[0] | tojson }}", r#"{"role":"user","content":"1"}"#),
        ("{{ '<&>' | tojson }}{{ '<&>' }}", r#""<&>"<&>"#),
        ("{% if tools is none and documents is none %}none{% endif %}{{ eos_token }}", "none</s>"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{{ messages[-1]['content'] }}{{ messages[1:] | length }}", "21"),
    ] {
        assert_eq!(rendered(template, &[user("1"), user("2")]).expect(template), wanted, "{template}");
    }
}

#[test]
fn a_template_that_refuses_the_conversation_is_quoted() {
    let refused = rendered("{{ raise_exception('roles must alternate') }}", &[]);
    assert!(
        matches!(&refused, Err(ChatError::Refused { message }) if message == "roles must alternate"),
        "{refused:?}"
    );
}

#[test]
fn the_date_comes_from_the_caller_or_not_at_all() {
    let template = ChatTemplate::from_gguf(&file(Some("{{ strftime_now('%d %b %Y') }}"), &[])).expect("sound");
    let now = jiff::civil::date(2024, 7, 26).at(12, 0, 0, 0);
    assert_eq!(template.render(&[], true, Some(now)).expect("given"), "26 Jul 2024");
    assert!(matches!(template.render(&[], true, None), Err(ChatError::NoDate)));
    let bad = ChatTemplate::from_gguf(&file(Some("{{ strftime_now('%') }}"), &[])).expect("sound");
    assert!(matches!(bad.render(&[], true, Some(now)), Err(ChatError::Template { .. })));
}

#[test]
fn endless_deep_long_and_broken_templates_end_in_an_error() {
    let fails = |template: &str| {
        let answer = rendered(template, &[user("x")]);
        assert!(matches!(answer, Err(ChatError::Template { .. })), "{template}: {answer:?}");
    };
    fails("{% if %}");
    fails("{{ messages[0].content.no_such_method() }}");
    fails("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}");
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
    fails("{% set a = 'x' * 900000 %}{% for i in range(9999) %}{{ a }}{% endfor %}");
    fails("{{ 'x' * 99999999999 }}");
    fails("{% include 'secrets' %}");
    let long = "x".repeat(300_000);
    assert!(matches!(rendered(&long, &[]), Err(ChatError::TooLong { length: 300_000, .. })));
}
