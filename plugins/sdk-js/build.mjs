// Makes a module of a guest: node build.mjs GUEST.js MODULE.wasm [WORLD]
//
// The world is transform, partitioner, derive, stateful-transform or stateful-derive, as in plugin.wit; without one it is transform.
//
// The guest's file has a class as its default export. QuickJS runs it; componentize-qjs puts both into a component and starts them once at
// build time, so that an instance begins with everything loaded. WASI is cut off: whatever asks for a clock or a file traps.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const sdk = dirname(fileURLToPath(import.meta.url));
const [guest, module, world = "transform"] = process.argv.slice(2);

/** What each world calls. */
const FUNCTIONS = {
    transform: "transform",
    partitioner: "partition",
    derive: "derive",
    "stateful-transform": "transform",
    "stateful-derive": "derive",
};
const called = FUNCTIONS[world];
if (module === undefined || called === undefined) {
    console.error(`usage: node build.mjs GUEST.js MODULE.wasm [${Object.keys(FUNCTIONS).join("|")}]`);
    process.exit(2);
}

/** Binds the state, in a world that has one. */
const STATE = `
import { state } from "SDK/state.js";
import { get, put, delete as remove, scan } from "millpond:plugin/state@1.0.0";

state.store = { get, put, delete: remove, scan };
`;

/** The engine has an export of its own called `init`, so the contract's is built under a name of the same length and renamed behind. */
const BUILT_AS = "boot";

const ENTRY = `
import { log as write } from "millpond:plugin/log@1.0.0";
import { contract, log } from "SDK/millpond-guest.js";
import Class from "GUEST";
${world.startsWith("stateful-") ? STATE : ""}
log.write = write;
// What would ask WASI for a time or a random number is answered here, in words and not with a trap.
const missing = (what) => () => {
    throw new Error("a module has no " + what + ": the same records must give the same answer");
};
const Clock = globalThis.Date;
globalThis.Date = class Date extends Clock {
    constructor(...parts) {
        if (parts.length === 0) missing("clock")();
        super(...parts);
    }
    static now = missing("clock");
};
Math.random = missing("random numbers");
globalThis.console ??= { debug: log.debug, log: log.info, info: log.info, warn: log.warn, error: log.error };

const guest = contract(Class);
export const ${BUILT_AS} = guest.init;
export const ${called} = guest.${called};
`;

/** The contract, which lies beside the SDK in this repository and in it in a project. */
function contractText() {
    for (const place of ["plugin.wit", "../wit/plugin.wit"]) {
        try {
            return readFileSync(join(sdk, place), "utf8");
        } catch (error) {
            if (error.code !== "ENOENT") throw error;
        }
    }
    throw new Error(`plugin.wit is missing in ${sdk}`);
}

/** Exchanges two names of equal length among the exports of a component (section 11 of its outermost level). */
function renameExports(component, one, other) {
    const exchanged = { [one]: other, [other]: one };
    const number = (at) => {
        let [value, shift] = [0, 0];
        for (; component[at] & 0x80; at++, shift += 7) value |= (component[at] & 0x7f) << shift;
        return [value | (component[at] << shift), at + 1];
    };
    let renamed = 0;
    for (let at = 8; at < component.length; ) {
        const id = component[at];
        const [length, start] = number(at + 1);
        const section = component.subarray(start, start + length);
        const found = id !== 11 ? [] : Object.keys(exchanged).map((name) => [section.indexOf(`\0${String.fromCharCode(name.length)}${name}`, 0, "latin1"), name]);
        for (const [place, name] of found) {
            if (place < 0) continue;
            section.write(exchanged[name], place + 2, "latin1");
            renamed += 1;
        }
        at = start + length;
    }
    if (renamed !== 2) throw new Error(`the component exports ${renamed} of the two functions that are to be renamed`);
}

async function main() {
    let componentize;
    try {
        ({ componentize } = await import("componentize-qjs"));
    } catch {
        throw new Error(`the npm package componentize-qjs is not installed: run 'npm ci' in ${sdk}`);
    }
    const source = resolve(guest);
    const root = commonFolder(dirname(source), sdk);
    mkdirSync(dirname(resolve(module)), { recursive: true });
    const work = mkdtempSync(join(sdk, ".build-"));
    try {
        const wit = join(work, "plugin.wit");
        writeFileSync(wit, contractText().replaceAll("export init:", `export ${BUILT_AS}:`));
        const fromHere = (path) => `./${relative(work, path)}`.replace("./../", "../");
        const jsSource = ENTRY.replaceAll("SDK", fromHere(sdk)).replace("GUEST", fromHere(source));
        const jsPath = join(work, "entry.js");
        writeFileSync(jsPath, jsSource);
        const options = { witPath: wit, jsSource, jsPath, moduleRoot: root, world, stubWasi: true, sync: true };
        const { component } = await componentize(options);
        renameExports(component, "init", BUILT_AS);
        writeFileSync(module, component);
    } finally {
        rmSync(work, { recursive: true, force: true });
    }
}

/** The folder that holds both: what the guest imports must be in it. */
function commonFolder(one, other) {
    let folder = one;
    while (relative(folder, other).startsWith("..")) folder = dirname(folder);
    return folder;
}

main().catch((error) => {
    console.error(`error: ${error.message ?? error}`);
    process.exit(1);
});
