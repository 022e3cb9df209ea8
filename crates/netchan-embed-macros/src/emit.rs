//! A plan as code.
//!
//! It has to survive the optimiser: LLVM folds whatever it sees through, also from one function into another, and a key that it
//! puts together itself stands in the program as data. So every mask, and the address of every function, passes through
//! `black_box`, and nothing rests on what `inline(never)` alone happens to stop.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{format_ident, quote_spanned};

use crate::plan::{Mix, Op, Plan, Step};

/// An expression that is constant: the runtime's value, around a function that puts the payload together.
pub(crate) fn emit(runtime: &TokenStream, value: &str, plan: &Plan) -> TokenStream {
    let span = Span::mixed_site();
    // Names by the place in the source, so that they tell shares and decoys apart no more than the code does.
    let mut names = vec![0; plan.steps.len()];
    plan.layout.iter().enumerate().for_each(|(name, &step)| names[step] = name);
    let name = |step: usize| format_ident!("step_{}", names[step], span = span);
    let (words, bytes) = (Literal::usize_unsuffixed(plan.words), Literal::usize_unsuffixed(plan.bytes));

    let functions = plan.layout.iter().map(|&step| function(&name(step), &words, &plan.steps[step]));
    let calls = plan.steps.iter().enumerate().map(|(index, step)| {
        let (name, target) = (name(index), if step.is_decoy { "scratch" } else { "out" });
        let target = format_ident!("{}", target, span = span);
        quote_spanned! { span => ::core::hint::black_box(#name as Step)(#target); }
    });
    let swaps = plan.swaps.iter().map(|&(a, b)| {
        let (a, b) = (Literal::usize_unsuffixed(a), Literal::usize_unsuffixed(b));
        quote_spanned! { span => out.swap(#a, #b); }
    });
    let value = format_ident!("{}", value, span = span);
    let attributes = attributes(span);
    quote_spanned! { span => {
        type Step = fn(&mut [u64; #words]);
        #(#functions)*
        #attributes
        fn order(out: &mut [u64; #words]) {
            #(#swaps)*
            let _ = out;
        }
        #attributes
        fn fill(out: &mut [u64]) {
            let out = <&mut [u64; #words] as ::core::convert::TryFrom<&mut [u64]>>::try_from(out);
            let ::core::result::Result::Ok(out) = out else { return };
            *out = [0; #words];
            let scratch = &mut ::core::hint::black_box([0; #words]);
            #(#calls)*
            ::core::hint::black_box(order as Step)(out);
            ::core::hint::black_box(scratch);
        }
        #runtime::#value::__new(fill, #words, #bytes)
    } }
}

/// Lints are for what people write; some look into the code of macros, and strict crates would not build.
fn attributes(span: Span) -> TokenStream {
    quote_spanned! { span =>
        #[cold]
        #[inline(never)]
        #[allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
    }
}

fn function(name: &proc_macro2::Ident, words: &Literal, step: &Step) -> TokenStream {
    let span = Span::mixed_site();
    let attributes = attributes(span);
    let ops = step.ops.iter().map(|op| statement(op, span));
    quote_spanned! { span =>
        #attributes
        fn #name(out: &mut [u64; #words]) {
            #(#ops)*
        }
    }
}

fn statement(op: &Op, span: Span) -> TokenStream {
    let place = Literal::usize_unsuffixed(op.place);
    let mask = Literal::u64_suffixed(op.mask);
    let mask = quote_spanned! { span => ::core::hint::black_box(#mask) };
    let word = match op.turn {
        0 => quote_spanned! { span => out[#place] },
        turn => {
            let turn = Literal::u32_unsuffixed(turn);
            quote_spanned! { span => out[#place].rotate_left(#turn) }
        }
    };
    match op.mix {
        Mix::Add => quote_spanned! { span => out[#place] = #word.wrapping_add(#mask); },
        Mix::Xor => quote_spanned! { span => out[#place] = #word ^ #mask; },
        Mix::From => quote_spanned! { span => out[#place] = #mask.wrapping_sub(#word); },
    }
}
