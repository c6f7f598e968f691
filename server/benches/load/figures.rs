//! What was measured, kept beside what was measured before, and drawn.
//!
//! A file of figures holds the last of each name, so that parts that were measured one after the other
//! are one picture.

use crate::database::Kind;
use crate::quantiles::Quantiles;
use anyhow::Context;
use jiff::Timestamp;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What a figure is to be at least, or at most.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// One of them.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    unit: String,
    measured: f64,
    goal: Goal,
    /// The day it was measured.
    on: String,
}

/// All of one database, by what they say.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Figures(BTreeMap<String, Figure>);

impl Goal {
    /// How far a figure is above what it is to be: 2 is twice as good, below 1 it is missed.
    fn times(self, measured: f64) -> f64 {
        match self {
            Self::AtLeast(least) => measured / least,
            Self::AtMost(most) => most / measured,
        }
    }
}

impl Figures {
    pub(crate) fn add(&mut self, what: &str, measured: f64, unit: &str, goal: Goal) {
        let figure = Figure {
            unit: unit.to_owned(),
            measured,
            goal,
            on: Timestamp::now().strftime("%Y-%m-%d").to_string(),
        };
        self.0.insert(what.to_owned(), figure);
    }

    /// The time that a hundredth of all exceeds.
    pub(crate) fn p99(&mut self, what: &str, took: &Quantiles, most: f64) {
        self.add(
            &format!("{what}, p99"),
            took.at(0.99),
            "ms",
            Goal::AtMost(most),
        );
    }

    /// Adds these to the database's file of a folder, `load-sqlite.json`, and draws all that are in it beside that.
    pub(crate) fn keep(self, folder: &Path, kind: Kind) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("load-{}.json", kind.word()));
        let mut all = match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice::<Self>(&text).with_context(|| path.display().to_string())?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error.into()),
        };
        all.0.extend(self.0);
        std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
        all.draw(&path.with_extension("svg"), kind)
    }

    /// A bar for each, from the line at which it is reached: to the right of it is better. Each tenfold is as wide.
    fn draw(&self, path: &Path, kind: Kind) -> anyhow::Result<()> {
        const ROW: i32 = 26;
        const TOP: i32 = 56;
        /// Where names end, and where a figure is reached.
        const NAMES: i32 = 360;
        const REACHED: i32 = 460;
        const TENFOLD: f64 = 130.0;
        let height = TOP + ROW * i32::try_from(self.0.len())? + 20;
        let picture = SVGBackend::new(path, (980, height.unsigned_abs())).into_drawing_area();
        picture.fill(&WHITE)?;
        let grey = RGBColor(110, 110, 110);
        let font = |size: u32, colour: &RGBColor| ("sans-serif", size).into_font().color(colour);
        let title = format!(
            "Roadstead on {kind}: how many times better than it has to be (1 × is reached)"
        );
        picture.draw(&Text::new(title, (16, 10), font(17, &BLACK)))?;
        for (tenfold, label) in [(0.0, "1 ×"), (1.0, "10 ×"), (2.0, "100 ×")] {
            let x = REACHED + (tenfold * TENFOLD) as i32;
            let line = vec![(x, TOP - 4), (x, height - 16)];
            picture.draw(&PathElement::new(
                line,
                grey.mix(if tenfold == 0.0 { 1.0 } else { 0.3 }),
            ))?;
            let middle = font(12, &grey).pos(Pos::new(HPos::Center, VPos::Bottom));
            picture.draw(&Text::new(label, (x, TOP - 6), middle))?;
        }
        for (row, (what, figure)) in (0..).zip(&self.0) {
            let times = figure.goal.times(figure.measured);
            let colour = if times >= 1.0 {
                RGBColor(38, 128, 74)
            } else {
                RGBColor(190, 50, 50)
            };
            let y = TOP + ROW * row + 4;
            let end = REACHED + (times.log10().clamp(-0.7, 3.0) * TENFOLD) as i32;
            let (left, right) = (REACHED.min(end), REACHED.max(end));
            let right = right.max(left + 1);
            picture.draw(&Rectangle::new(
                [(left, y), (right, y + 14)],
                colour.filled(),
            ))?;
            let ending = font(13, &BLACK).pos(Pos::new(HPos::Right, VPos::Top));
            picture.draw(&Text::new(what.as_str(), (NAMES, y - 1), ending))?;
            let (word, goal) = match figure.goal {
                Goal::AtLeast(least) => ("≥", least),
                Goal::AtMost(most) => ("≤", most),
            };
            let (measured, unit) = (short(figure.measured), &figure.unit);
            let told = format!("{measured} {unit}, to reach {word} {}", short(goal));
            picture.draw(&Text::new(told, (right + 8, y), font(12, &grey)))?;
        }
        picture.present()?;
        Ok(())
    }
}

/// Three digits at least, no more behind the point than matter.
fn short(number: f64) -> String {
    let digits = match number {
        number if number >= 100.0 => 0,
        number if number >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$}")
}
