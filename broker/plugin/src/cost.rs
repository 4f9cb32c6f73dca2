//! What it would cost to compile an upload, counted before the compiler sees it.
//!
//! The compiler can't be stopped and its memory can't be limited, and for some code it needs far more of both than the code is long:
//! 77 KiB of branches over 40,000 locals took 1.7 GB, 14 KB of nested loops more than a minute. Compilers for WebAssembly never make
//! such code, so whoever sends it gets a refusal that names the function.

use wasmparser::{BlockType, CompositeInnerType, ElementItems, Encoding, FunctionBody, Operator, Parser, Payload, TypeRef};

use crate::error::PluginError;
use crate::limits::{
    BLOCK_VALUES_PER_FUNCTION_MAX, BRANCHES_PER_FUNCTION_MAX, CODE_BYTES_MAX, COST_MAX, COST_PER_FUNCTION_MAX, FUNCTION_BYTES_MAX,
    ITEMS_MAX, LOCALS_PER_FUNCTION_MAX, LOOP_DEPTH_MAX, SIGNATURE_VALUES_MAX,
};
use crate::upload::compile;

/// Refuses a component if one of the functions in its core modules, or all of them together, would cost too much.
pub(crate) fn check(component: &[u8]) -> Result<(), PluginError> {
    let mut total = Total::default();
    let mut module = CoreModule::default();
    let mut modules = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| compile(&error))? {
            Payload::Version { encoding: Encoding::Module, .. } => {
                module = CoreModule { number: modules, ..CoreModule::default() };
                modules = modules.saturating_add(1);
            }
            Payload::TypeSection(types) => {
                total.items(types.count())?;
                module.types(types)?;
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    total.items(1)?;
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import.map_err(|error| compile(&error))?.ty {
                        module.signature_of.push(ty);
                        module.next = module.signature_of.len();
                    }
                }
            }
            Payload::FunctionSection(functions) => {
                total.items(functions.count())?;
                for ty in functions {
                    module.signature_of.push(ty.map_err(|error| compile(&error))?);
                }
            }
            Payload::ExportSection(exports) => total.items(exports.count())?,
            Payload::ElementSection(segments) => {
                for segment in segments {
                    total.items(match segment.map_err(|error| compile(&error))?.items {
                        ElementItems::Functions(functions) => functions.count(),
                        ElementItems::Expressions(_, expressions) => expressions.count(),
                    })?;
                }
            }
            Payload::CodeSectionEntry(body) => total.add(&module.next_function(&body)?)?,
            _ => {}
        }
    }
    Ok(())
}

/// What is known of the core module whose functions are read.
#[derive(Debug, Default)]
struct CoreModule {
    /// Its place among the core modules of the upload.
    number: u32,
    /// Parameters and results of each signature, by the index of its type.
    signatures: Vec<(usize, usize)>,
    /// The type of each function, imported ones first.
    signature_of: Vec<u32>,
    /// The index of the function whose body comes next.
    next: usize,
}

impl CoreModule {
    fn types(&mut self, types: wasmparser::TypeSectionReader<'_>) -> Result<(), PluginError> {
        for group in types {
            for ty in group.map_err(|error| compile(&error))?.types() {
                let (params, results) = match &ty.composite_type.inner {
                    CompositeInnerType::Func(signature) => (signature.params().len(), signature.results().len()),
                    _ => (0, 0),
                };
                let (actual, limit) = ((params + results) as u64, SIGNATURE_VALUES_MAX);
                if actual > limit {
                    return Err(PluginError::SignatureTooLong { module: self.number, type_index: self.signatures.len(), actual, limit });
                }
                self.signatures.push((params, results));
            }
        }
        Ok(())
    }

    /// Parameters and results; none for a type that isn't there, which the compiler will refuse.
    fn signature(&self, type_index: u32) -> (usize, usize) {
        self.signatures.get(type_index as usize).copied().unwrap_or_default()
    }

    /// Counts the next function and holds it against the limits for one.
    fn next_function(&mut self, body: &FunctionBody<'_>) -> Result<Function, PluginError> {
        let index = self.next;
        self.next += 1;
        let refused = |what, actual, limit| PluginError::FunctionTooComplex { module: self.number, function: index, what, actual, limit };

        let bytes = body.range().len() as u64;
        if bytes > FUNCTION_BYTES_MAX {
            return Err(refused("bytes of code", bytes, FUNCTION_BYTES_MAX));
        }
        let function = Function::count(body, index, self).map_err(|error| compile(&error))?;
        for (what, actual, limit) in [
            ("locals and parameters", function.locals, LOCALS_PER_FUNCTION_MAX),
            ("branches and checks", function.branches, BRANCHES_PER_FUNCTION_MAX),
            ("loops within each other", function.loop_depth, LOOP_DEPTH_MAX),
            ("values that enter or leave blocks", function.block_values, BLOCK_VALUES_PER_FUNCTION_MAX),
            ("units of compilation cost", function.cost(), COST_PER_FUNCTION_MAX),
        ] {
            if actual > limit {
                return Err(refused(what, actual, limit));
            }
        }
        Ok(function)
    }

    /// What a call counts for: one, and one more for each 16 values that are passed.
    fn call(&self, type_index: u32) -> u64 {
        let (params, results) = self.signature(type_index);
        1 + (params + results) as u64 / 16
    }

    fn block_values(&self, ty: BlockType) -> u64 {
        match ty {
            BlockType::Empty => 0,
            BlockType::Type(_) => 1,
            BlockType::FuncType(index) => {
                let (params, results) = self.signature(index);
                (params + results) as u64
            }
        }
    }
}

/// What was counted in one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Function {
    bytes: u64,
    /// Parameters included.
    locals: u64,
    /// Where the flow of control parts or meets, the targets of a `br_table` each; and instructions that check their operands.
    branches: u64,
    loops: u64,
    /// How many loops are within each other at the deepest place.
    loop_depth: u64,
    /// The parameters and results of all blocks.
    block_values: u64,
    /// Calls, after [`CoreModule::call`], and instructions that become one: growing, filling and copying memories and tables.
    calls: u64,
}

impl Function {
    fn count(body: &FunctionBody<'_>, index: usize, module: &CoreModule) -> wasmparser::Result<Function> {
        let params = module.signature_of.get(index).map_or(0, |&ty| module.signature(ty).0);
        let mut function = Function { bytes: body.range().len() as u64, locals: params as u64, ..Function::default() };
        for locals in body.get_locals_reader()? {
            function.locals += u64::from(locals?.0);
        }
        let mut open_blocks = Vec::new(); // whether each is a loop
        let mut open_loops = 0_u64;
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            match &operator {
                Operator::Block { blockty } | Operator::If { blockty } | Operator::Loop { blockty } => {
                    let is_loop = matches!(operator, Operator::Loop { .. });
                    open_blocks.push(is_loop);
                    open_loops += u64::from(is_loop);
                    function.loops += u64::from(is_loop);
                    function.loop_depth = function.loop_depth.max(open_loops);
                    function.block_values += module.block_values(*blockty);
                    function.branches += 1;
                }
                Operator::End => open_loops -= u64::from(open_blocks.pop() == Some(true)),
                Operator::BrTable { targets } => function.branches += u64::from(targets.len()) + 1,
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    let ty = module.signature_of.get(*function_index as usize).copied();
                    function.calls += module.call(ty.unwrap_or(u32::MAX));
                }
                Operator::CallIndirect { type_index, .. } | Operator::ReturnCallIndirect { type_index, .. } => {
                    function.calls += module.call(*type_index);
                }
                operator if becomes_a_call(operator) => function.calls += 1,
                operator => function.branches += branches(operator),
            }
        }
        Ok(function)
    }

    /// What the function costs to compile. The squares stand for the compiler's own: a value that lives across all calls or loops of
    /// a function is looked at again at each.
    fn cost(&self) -> u64 {
        let square = |count: u64| count.saturating_mul(count) / 16;
        let linear = 128 + 8 * (self.branches + self.calls);
        let squares = [self.calls, self.loops, self.block_values].into_iter().map(square).fold(0, u64::saturating_add);
        self.locals.saturating_mul(self.branches).saturating_add(squares).saturating_add(linear)
    }
}

/// What was counted in all functions so far.
#[derive(Debug, Default)]
struct Total {
    code_bytes: u64,
    cost: u64,
    items: u64,
}

impl Total {
    /// Adds functions, types, imports, exports or elements of tables: the compiler puts code of its own around each.
    fn items(&mut self, count: u32) -> Result<(), PluginError> {
        self.items += u64::from(count);
        let (what, actual, limit) = ("functions, types, imports, exports and elements of tables", self.items, ITEMS_MAX);
        if actual > limit { Err(PluginError::CodeTooComplex { what, actual, limit }) } else { Ok(()) }
    }

    fn add(&mut self, function: &Function) -> Result<(), PluginError> {
        self.code_bytes += function.bytes;
        self.cost = self.cost.saturating_add(function.cost());
        for (what, actual, limit) in
            [("bytes of code", self.code_bytes, CODE_BYTES_MAX), ("units of compilation cost", self.cost, COST_MAX)]
        {
            if actual > limit {
                return Err(PluginError::CodeTooComplex { what, actual, limit });
            }
        }
        Ok(())
    }
}

/// How often the flow of control parts here: at a branch, or where the compiler adds a check that may trap.
fn branches(operator: &Operator<'_>) -> u64 {
    use Operator as O;
    let divides = matches!(operator, O::I32DivS | O::I32DivU | O::I32RemS | O::I32RemU | O::I64DivS | O::I64DivU | O::I64RemS | O::I64RemU);
    match operator {
        O::Else | O::Br { .. } | O::BrIf { .. } | O::Return => 1,
        O::I32TruncF32S
        | O::I32TruncF32U
        | O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I64TruncF64S
        | O::I64TruncF64U => 2,
        _ => u64::from(divides),
    }
}

/// Whether the compiler makes a call into the host of it.
fn becomes_a_call(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::MemoryGrow { .. }
            | O::MemoryFill { .. }
            | O::MemoryCopy { .. }
            | O::MemoryInit { .. }
            | O::DataDrop { .. }
            | O::ElemDrop { .. }
            | O::TableGet { .. }
            | O::TableSet { .. }
            | O::TableGrow { .. }
            | O::TableFill { .. }
            | O::TableCopy { .. }
            | O::TableInit { .. }
            | O::RefFunc { .. }
            | O::CallRef { .. }
            | O::ReturnCallRef { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::error::PluginError;
    use crate::limits::{
        BLOCK_VALUES_PER_FUNCTION_MAX, BRANCHES_PER_FUNCTION_MAX, CODE_BYTES_MAX, COST_MAX, COST_PER_FUNCTION_MAX, FUNCTION_BYTES_MAX,
        ITEMS_MAX, LOCALS_PER_FUNCTION_MAX, LOOP_DEPTH_MAX, SIGNATURE_VALUES_MAX,
    };

    /// Checks a core module of these items, the second of a component that has another component around it.
    fn check_items(items: &str) -> Result<(), PluginError> {
        let text = format!("(component (core module) (component (core module {items})))");
        check(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")))
    }

    fn times(text: &str, count: u64) -> String {
        text.repeat(usize::try_from(count).expect("a small number"))
    }

    /// Checks a function behind an imported one.
    fn check_function(signature: &str, body: &str) -> Result<(), PluginError> {
        check_items(&format!(r#"(import "a" "b" (func)) (func $f {signature} {body})"#))
    }

    #[track_caller]
    fn assert_refused(checked: &Result<(), PluginError>, words: &str, expected: (u64, u64)) {
        let Err(PluginError::FunctionTooComplex { module: 1, function: 1, what, actual, limit }) = checked else { panic!("{checked:?}") };
        assert!(what.contains(words), "{what}");
        assert_eq!((*actual, *limit), expected);
    }

    #[test]
    fn a_function_has_a_limit_on_its_bytes() {
        let max = FUNCTION_BYTES_MAX;
        let nops = |bytes| check_function("", &times("nop ", bytes - 2)); // beside the count of locals and the end
        assert_eq!(nops(max), Ok(()));
        assert_refused(&nops(max + 1), "bytes", (max + 1, max));
    }

    #[test]
    fn a_function_has_a_limit_on_its_locals_and_parameters() {
        let max = LOCALS_PER_FUNCTION_MAX;
        let locals = |count| check_function(&format!("(param i32 i64) (local {})", times("i32 ", count - 2)), "");
        assert_eq!(locals(max), Ok(()));
        assert_refused(&locals(max + 1), "locals", (max + 1, max));
    }

    #[test]
    fn a_function_has_a_limit_on_its_branches_and_checks() {
        let max = BRANCHES_PER_FUNCTION_MAX;
        for (unit, each) in [
            ("(block)", 1),
            ("(br_if 0 (i32.const 1))", 1),
            ("(if (i32.const 1) (then) (else nop))", 2),
            ("(drop (i32.div_s (i32.const 1) (i32.const 1)))", 1),
            ("(drop (i32.trunc_f32_s (f32.const 1)))", 2),
            ("(block (br_table 0 0 0 0 0 0 0 (i32.const 1)))", 8),
        ] {
            assert_eq!(check_function("", &times(unit, max / each)), Ok(()), "{unit}");
            assert_refused(&check_function("", &times(unit, max / each + 1)), "branches", (max + each, max));
        }
    }

    #[test]
    fn loops_have_a_limit_on_their_depth_and_not_on_their_number() {
        let max = LOOP_DEPTH_MAX;
        let nested = |depth| check_function("", &format!("{} {}", times("(loop (block ", depth), times("))", depth)));
        assert_eq!(nested(max), Ok(()));
        assert_refused(&nested(max + 1), "loops", (max + 1, max));
        assert_eq!(check_function("", &times("(loop)", 10 * max)), Ok(()));
    }

    #[test]
    fn a_function_has_a_limit_on_the_values_of_its_blocks() {
        let max = BLOCK_VALUES_PER_FUNCTION_MAX;
        for (unit, each) in [("(drop (block (result i32) (i32.const 1)))", 1), ("(i32.const 1) (block (param i32) (result i32)) drop", 2)] {
            assert_eq!(check_function("", &times(unit, max / each)), Ok(()), "{unit}");
            assert_refused(&check_function("", &times(unit, max / each + 1)), "values", (max + each, max));
        }
    }

    #[test]
    fn a_signature_has_a_limit_on_its_values() {
        let max = SIGNATURE_VALUES_MAX;
        let values = |count| check_items(&format!("(type (func)) (type (func (param {}) (result i32)))", times("i64 ", count - 1)));
        assert_eq!(values(max), Ok(()));
        assert_eq!(values(max + 1), Err(PluginError::SignatureTooLong { module: 1, type_index: 1, actual: max + 1, limit: max }));
    }

    #[test]
    fn a_function_has_a_limit_on_its_cost() {
        let max = COST_PER_FUNCTION_MAX;
        let product = |blocks| check_function(&format!("(local {})", times("i32 ", 992)), &times("(block)", blocks));
        assert_eq!(product((max - 128) / 1000), Ok(()));
        assert_refused(&product(max / 1000), "cost", (max + 128, max));

        let calls = |count| check_function("", &times("call $f ", count));
        assert_eq!(calls(4096), Ok(()));
        assert_refused(&calls(4864), "cost", (4864 * 4864 / 16 + 8 * 4864 + 128, max));
        let long = format!("(param {})", times("i32 ", 47));
        let one = format!("{} call $f ", times("(i32.const 1)", 47)); // counts for three
        assert_eq!(check_function(&long, &times(&one, 1500)), Ok(()));
        assert_refused(&check_function(&long, &times(&one, 1650)), "cost", (4950 * 4950 / 16 + 8 * 4950 + 128, max));
    }

    #[test]
    fn all_functions_together_have_limits() {
        let of = |function: &str, count: u64| check_items(&times(function, count));
        let long = format!("(func {})", times("v128.const i64x2 0 0 drop ", 13_000));
        let each = 2 + 13_000 * 19;
        assert_eq!(of(&long, CODE_BYTES_MAX / each), Ok(()));
        let actual = (CODE_BYTES_MAX / each + 1) * each;
        let too_much = PluginError::CodeTooComplex { what: "bytes of code", actual, limit: CODE_BYTES_MAX };
        assert_eq!(of(&long, CODE_BYTES_MAX / each + 1), Err(too_much));

        let costly = format!("(func (local {}) {})", times("i32 ", 992), times("(block)", 1000));
        let each = 1000 * 1000 + 128;
        assert_eq!(of(&costly, COST_MAX / each), Ok(()));
        let actual = (COST_MAX / each + 1) * each;
        assert_eq!(
            of(&costly, COST_MAX / each + 1),
            Err(PluginError::CodeTooComplex { what: "units of compilation cost", actual, limit: COST_MAX })
        );
    }

    #[test]
    fn items_have_a_limit() {
        let max = ITEMS_MAX;
        let one = "(func $f) (table 1 funcref)"; // a type and a function
        for (before, unit, after) in [("", "(func)", ""), ("(elem func ", "$f ", ")"), ("(type (func (param i32))) ", "(type (func))", "")]
        {
            let items = |count| check_items(&format!("{one} {before} {} {after}", times(unit, count)));
            assert_eq!(items(max - 3), Ok(()), "{unit}");
            let refused = items(max);
            assert!(
                matches!(refused, Err(PluginError::CodeTooComplex { actual, limit, .. }) if actual > max && limit == max),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn functions_that_make_no_sense_are_left_to_the_compiler() {
        // A body whose type isn't there, and one with an end too many.
        for module in [
            &b"\0asm\x01\0\0\0\x03\x02\x01\x09\x0a\x04\x01\x02\0\x0b"[..],
            b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x06\x01\x04\0\x0b\x0b\x0b",
        ] {
            let checked = check(module);
            assert!(matches!(checked, Ok(()) | Err(PluginError::Compile { .. })), "{checked:?}");
        }
    }
}
