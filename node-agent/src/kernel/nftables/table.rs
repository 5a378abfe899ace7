//! The table as a whole: one transaction to write it, three dumps to read it.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::host::{NFT_TABLE, ObservedPacketRules, PacketRules};
use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::super::error::KernelError;
use super::super::message::{AttributeWriter, Attributes, MessageError, Request};
use super::super::socket::NetlinkSocket;
use super::expression;
use super::layout::{self, Hook};
use super::rule::{self, Rule};

/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = (SUBSYSTEM << 8) | 1;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const GET_CHAIN: u16 = (SUBSYSTEM << 8) | 4;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const GET_RULE: u16 = (SUBSYSTEM << 8) | 7;
/// `NFTA_TABLE_NAME`, and the table in chains and rules.
const TABLE_NAME: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USER_DATA: u16 = 7;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Bytes of `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;
/// Module of nf_tables.
const MODULE: &str = "nf_tables";
/// Modules of the expressions that translate sources, which the kernel loads when a rule uses them.
const SOURCE_NAT_MODULES: &str = "nft_chain_nat, nft_nat, nft_ct, nft_fib_inet or nft_numgen";

const HEADER: [u8; HEADER_BYTES] = [INET, 0, 0, 0];

fn table_name(attribute: u16) -> Result<AttributeWriter, MessageError> {
    let mut attributes = AttributeWriter::new();
    attributes.text(attribute, NFT_TABLE)?;
    Ok(attributes)
}

fn open(timeout: Duration) -> Result<NetlinkSocket, KernelError> {
    NetlinkSocket::open(SockProtocol::NetlinkNetFilter, timeout)
        .map_err(|error| error.or_module_missing(&[Errno::EPROTONOSUPPORT], MODULE))
}

/// Writes the table anew with these rules, in one transaction.
pub fn replace(rules: &PacketRules, timeout: Duration) -> Result<(), KernelError> {
    let doing = format!(
        "writing nftables table {NFT_TABLE} with {} rules for marks and {} for source addresses",
        rules.marks.len(),
        rules.source_nat.len()
    );
    let messages = replacement(rules).map_err(|source| KernelError::Message {
        doing: doing.clone(),
        source,
    })?;
    let translates = !rules.source_nat.is_empty();
    transaction(&doing, messages, timeout).map_err(|error| {
        // nf_tables_expr_parse and nf_tables_addchain: an expression or a type of chain that nothing provides.
        if translates {
            error.or_module_missing(&[Errno::ENOENT], SOURCE_NAT_MODULES)
        } else {
            error
        }
    })
}

/// Deletes the table.
pub fn delete(timeout: Duration) -> Result<(), KernelError> {
    let doing = format!("deleting nftables table {NFT_TABLE}");
    let attributes = table_name(TABLE_NAME).map_err(|source| KernelError::Message {
        doing: doing.clone(),
        source,
    })?;
    transaction(
        &doing,
        vec![Request::new(
            DELETE_TABLE,
            NlmF::empty(),
            &HEADER,
            &attributes,
        )],
        timeout,
    )
}

/// Add, delete, add: the first makes the second succeed whether or not there was a table.
fn replacement(rules: &PacketRules) -> Result<Vec<Request>, MessageError> {
    let name = table_name(TABLE_NAME)?;
    let mut messages = vec![
        Request::new(NEW_TABLE, NlmF::CREATE, &HEADER, &name),
        Request::new(DELETE_TABLE, NlmF::empty(), &HEADER, &name),
        Request::new(NEW_TABLE, NlmF::CREATE, &HEADER, &name),
    ];
    let chains = layout::chains(rules);
    for chain in &chains {
        let mut attributes = table_name(TABLE_NAME)?;
        attributes.text(CHAIN_NAME, &chain.name)?;
        if let Some(hook) = &chain.hook {
            let mut writer = AttributeWriter::new();
            writer
                .u32_network(HOOK_NUMBER, hook.number)?
                .bytes(HOOK_PRIORITY, &hook.priority.to_be_bytes())?;
            attributes
                .nest(CHAIN_HOOK, &writer)?
                .u32_network(CHAIN_POLICY, ACCEPT)?
                .text(CHAIN_TYPE, hook.type_)?;
        }
        messages.push(Request::new(NEW_CHAIN, NlmF::CREATE, &HEADER, &attributes));
    }
    for chain in &chains {
        for rule in &chain.rules {
            let mut attributes = table_name(TABLE_NAME)?;
            attributes
                .text(RULE_CHAIN, &chain.name)?
                .nest(
                    RULE_EXPRESSIONS,
                    &expression::write(&rule::expressions(rule))?,
                )?
                .bytes(RULE_USER_DATA, &rule::user_data(rule))?;
            messages.push(Request::new(
                NEW_RULE,
                NlmF::CREATE | NlmF::APPEND,
                &HEADER,
                &attributes,
            ));
        }
    }
    Ok(messages)
}

fn transaction(
    doing: &str,
    mut messages: Vec<Request>,
    timeout: Duration,
) -> Result<(), KernelError> {
    let mut boundary = HEADER;
    boundary[0] = 0;
    boundary[2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
    let nothing = AttributeWriter::new();
    if let Some(last) = messages.last_mut() {
        // Acknowledged only once the whole is committed.
        last.flags |= NlmF::ACK;
    }
    let acknowledged = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    messages.insert(
        0,
        Request::new(BATCH_BEGIN, NlmF::empty(), &boundary, &nothing),
    );
    messages.push(Request::new(BATCH_END, NlmF::empty(), &boundary, &nothing));
    open(timeout)?
        .execute_batch(doing, &messages, acknowledged)
        .map_err(|error| error.or_module_missing(&[Errno::EOPNOTSUPP], MODULE))
}

fn attributes(body: &[u8]) -> Result<Attributes, MessageError> {
    Attributes::read(
        body.get(HEADER_BYTES..).ok_or_else(|| {
            MessageError::Decode("an nftables message of less than 4 bytes".into())
        })?,
    )
}

/// Content of the table; `None` = there is no such table.
pub fn observe(timeout: Duration) -> Result<Option<ObservedPacketRules>, KernelError> {
    let doing = format!("reading nftables table {NFT_TABLE}");
    let message = |source| KernelError::Message {
        doing: doing.clone(),
        source,
    };
    let mut socket = match open(timeout) {
        Ok(socket) => socket,
        // Without nfnetlink there is no nftables, hence no table.
        Err(KernelError::ModuleMissing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = table_name(TABLE_NAME).map_err(message)?;
    let get = Request::new(GET_TABLE, NlmF::empty(), &HEADER, &name);
    match socket.execute(&doing, get) {
        Ok(()) => {}
        // ENOENT: no such table. EINVAL: nfnetlink knows no subsystem nf_tables (the request itself is well-formed).
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EINVAL)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }

    // Dumps have consistent generations each; a change between them shows as damage and is looked at again.
    let chains = Request::new(GET_CHAIN, NlmF::empty(), &HEADER, &AttributeWriter::new());
    let mut found = socket.dump(&doing, chains, |found: &mut Found, type_, body| {
        if type_ == NEW_CHAIN {
            let attributes = attributes(body).map_err(message)?;
            if attributes.text(TABLE_NAME).as_deref() == Some(NFT_TABLE)
                && let Some(name) = attributes.text(CHAIN_NAME)
            {
                found.damaged |= !has_its_hook(&name, &attributes).map_err(message)?;
                found.chains.insert(name, Vec::new());
            }
        }
        Ok(())
    })?;

    let rules = Request::new(GET_RULE, NlmF::empty(), &HEADER, &name);
    let read = socket.dump(
        &doing,
        rules,
        |read: &mut Vec<(String, Option<Rule>)>, type_, body| {
            if type_ == NEW_RULE {
                let attributes = attributes(body).map_err(message)?;
                if attributes.text(TABLE_NAME).as_deref() != Some(NFT_TABLE) {
                    return Ok(());
                }
                let list = attributes.nested(RULE_EXPRESSIONS).map_err(message)?;
                let rule =
                    rule::read(attributes.get(RULE_USER_DATA), list.as_ref()).map_err(message)?;
                read.push((attributes.text(RULE_CHAIN).unwrap_or_default(), rule));
            }
            Ok(())
        },
    )?;
    for (chain, rule) in read {
        match (rule, found.chains.get_mut(&chain)) {
            (Some(rule), Some(rules)) => rules.push(rule),
            _ => found.damaged = true,
        }
    }
    let rules = layout::packet_rules(&found.chains);
    let written = layout::chains(&rules).into_iter();
    let written: BTreeMap<String, Vec<Rule>> =
        written.map(|chain| (chain.name, chain.rules)).collect();
    Ok(Some(ObservedPacketRules {
        damaged: found.damaged || written != found.chains,
        rules,
    }))
}

#[derive(Default)]
struct Found {
    chains: BTreeMap<String, Vec<Rule>>,
    damaged: bool,
}

/// Whether a chain is called where we have it called: by its name, at a hook or only from other chains.
fn has_its_hook(name: &str, attributes: &Attributes) -> Result<bool, MessageError> {
    let found = attributes.nested(CHAIN_HOOK)?;
    let (wanted, found) = match (layout::hook(name), found) {
        (None, found) => return Ok(found.is_none()),
        (Some(_), None) => return Ok(false),
        (Some(wanted), Some(found)) => (wanted, found),
    };
    let Hook {
        type_,
        number,
        priority,
    } = wanted;
    Ok(found.u32_network(HOOK_NUMBER)? == Some(number)
        && found.get(HOOK_PRIORITY) == Some(priority.to_be_bytes().as_slice())
        && attributes.text(CHAIN_TYPE).as_deref() == Some(type_)
        && attributes.u32_network(CHAIN_POLICY)? == Some(ACCEPT))
}
