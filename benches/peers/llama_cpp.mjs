// How fast llama.cpp reads prompts and writes tokens, for `isotherm bench runtime --speed --peer DIR`.
//
// usage: node llama_cpp.mjs DIR MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS ROUNDS SEQUENCES[,SEQUENCES...]
//
// DIR is a folder in which `npm install --ignore-scripts --omit=optional node-llama-cpp@3.22.1
// @node-llama-cpp/linux-x64@3.22.1` was run: the library there is prebuilt for each instruction set and chooses the best
// one when it is loaded. Nothing is downloaded or compiled here. With ISOTHERM_PEER_GPU=vulkan all layers are on the
// device that GGML_VK_VISIBLE_DEVICES names, by the package @node-llama-cpp/linux-x64-vulkan of the same version.
//
// The script waits for a line on standard input before each round, so that whoever drives it can measure in turns, and
// answers with one line of JSON: seconds of the prompt, seconds of each token after it, and for each number of sequences
// the tokens per second that they wrote together. Tokens are chosen by the library's greedy sampler. Pin the process with
// `taskset`; THREADS is the number of the library's own threads.

import path from "node:path";
import readline from "node:readline";
import {pathToFileURL} from "node:url";

const [folder, model, threadsText, promptText, outputText, roundsText, sequencesText] = process.argv.slice(2);
const [threads, prompt, output, rounds] = [threadsText, promptText, outputText, roundsText].map(Number);
const counts = sequencesText.split(",").map(Number);
const entry = path.resolve(folder, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry).href);

const gpu = process.env.ISOTHERM_PEER_GPU || false;
const llama = await getLlama({
    gpu, build: "never", skipDownload: true, progressLogs: false, logLevel: LlamaLogLevel.error, maxThreads: 0,
});
const loaded = await llama.loadModel({modelPath: path.resolve(model), gpuLayers: gpu ? "max" : 0, defaultContextFlashAttention: true});
const size = prompt + output + 16;
const single = await loaded.createContext({contextSize: size, batchSize: Math.max(prompt, 512), threads});
const many = [];
for (const count of counts) {
    many.push(await loaded.createContext({
        contextSize: 64 + output, batchSize: 512, threads, sequences: count,
    }));
}
const first = (length, salt) => Array.from({length}, (_, i) => (i * 37 + salt) % 250 + 3);
const seconds = (begin) => Number(process.hrtime.bigint() - begin) * 1e-9;
// A token that ends texts ends nothing here: both sides write as many as they are asked for.
const options = {temperature: 0, yieldEogToken: true};

async function write(sequence, last, count, times) {
    let begin = process.hrtime.bigint();
    let left = count;
    for await (const _ of sequence.evaluate([last], options)) {
        times?.push(seconds(begin));
        if (--left === 0) break;
        begin = process.hrtime.bigint();
    }
}

async function round() {
    const sequence = single.getSequence();
    const tokens = first(prompt, 0);
    let begin = process.hrtime.bigint();
    await sequence.evaluateWithoutGeneratingNewTokens(tokens);
    const prefill_s = seconds(begin);
    const token_s = [];
    await write(sequence, 5, output, token_s);
    sequence.dispose();
    const together = [];
    for (let i = 0; i < counts.length; i++) {
        const sequences = Array.from({length: counts[i]}, () => many[i].getSequence());
        await Promise.all(sequences.map((one, at) => one.evaluateWithoutGeneratingNewTokens(first(16, at))));
        begin = process.hrtime.bigint();
        await Promise.all(sequences.map((one) => write(one, 7, output)));
        together.push(counts[i] * output / seconds(begin));
        sequences.forEach((one) => one.dispose());
    }
    return {prefill_s, token_s, together};
}

console.log(JSON.stringify({ready: true, version: `node-llama-cpp 3.22.1${gpu ? `, ${llama.gpu}` : ""}`, release: llama.llamaCppRelease?.release}));
const lines = readline.createInterface({input: process.stdin})[Symbol.asyncIterator]();
for (let i = 0; i < rounds; i++) {
    if ((await lines.next()).done) break;
    console.log(JSON.stringify(await round()));
}
process.exit(0);
