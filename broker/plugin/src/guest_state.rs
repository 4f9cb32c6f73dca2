//! What guests read of their state and write to it, through the draft that whoever calls them has put beside the instance.

use wasmtime::component::Linker;
use wasmtime::{StoreContextMut, bail};

use crate::contract::STATE;
use crate::instance::State;
use crate::state::StateDraft;

/// Keys and values as they cross.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Gives guests their state. A module that imports it is attached only where there is one.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut state = linker.instance(STATE)?;
    state.func_wrap("get", |mut store: StoreContextMut<'_, State>, (key,): (Vec<u8>,)| {
        Ok((draft(&mut store)?.get(&key).map(<[u8]>::to_vec),))
    })?;
    state.func_wrap("put", |mut store: StoreContextMut<'_, State>, (key, value): (Vec<u8>, Vec<u8>)| {
        Ok((draft(&mut store)?.put(key, value),))
    })?;
    state.func_wrap("delete", |mut store: StoreContextMut<'_, State>, (key,): (Vec<u8>,)| {
        draft(&mut store)?.delete(key);
        Ok(())
    })?;
    state.func_wrap(
        "scan",
        |mut store: StoreContextMut<'_, State>, (prefix, after, limit): (Vec<u8>, Option<Vec<u8>>, u32)| -> wasmtime::Result<(Entries,)> {
            Ok((draft(&mut store)?.scan(&prefix, after.as_deref(), limit as usize),))
        },
    )
}

fn draft<'a>(store: &'a mut StoreContextMut<'_, State>) -> wasmtime::Result<&'a mut StateDraft> {
    match &mut store.data_mut().draft {
        Some(draft) => Ok(draft),
        None => bail!("the state is there while a batch is processed, and not before"),
    }
}
