//! Experiments and flags as hashes: one field for each part, so that people can read them.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ranges::Ranges;
use crate::{Arm, Error, Experiment, Flag, Result, TOTAL, Target};

/// The version of the hashes that this release writes and reads.
pub(crate) const FORMAT_VERSION: &str = "1";

pub(crate) type Fields = HashMap<String, String>;

/// Fields whose value is what they are without them are left out.
pub(crate) fn of_experiment(experiment: &Experiment) -> Result<Vec<(&'static str, String)>> {
    let plain = Experiment::new("", "", Target::model(""));
    let mut fields = vec![
        ("v", FORMAT_VERSION.to_owned()),
        ("status", json(&experiment.status)?),
        ("bucketing", json(&experiment.bucketing)?),
        ("arms", json(&experiment.arms)?),
    ];
    let mut add = |name, differs: bool, text: Result<String>| -> Result<()> {
        if differs {
            fields.push((name, text?));
        }
        Ok(())
    };
    let Experiment {
        bucket_version,
        unit,
        total,
        salts,
        eligible,
        exclusion,
        start,
        end,
        targeting,
        overrides,
        ..
    } = experiment;
    add("bucket_version", *bucket_version != plain.bucket_version, json(bucket_version))?;
    add("unit", *unit != plain.unit, Ok(unit.clone()))?;
    add("total", *total != plain.total, json(total))?;
    add("salts", salts.is_some(), json(salts))?;
    add("eligible", *eligible != plain.eligible, json(eligible))?;
    add("exclusion", exclusion.is_some(), json(exclusion))?;
    add("start_time", start.is_some(), json(start))?;
    add("end_time", end.is_some(), json(end))?;
    add("targeting", targeting.is_some(), json(targeting))?;
    add("overrides", !overrides.is_empty(), json(overrides))?;
    Ok(fields)
}

/// Reads an experiment; also the plain form with `control_model`, `treatment_model` and `traffic_split` such as `90:10`.
pub(crate) fn to_experiment(name: &str, fields: &Fields) -> Result<Experiment> {
    let what = format!("experiment {name}");
    let reader = Reader { what: &what, fields };
    let mut experiment = Experiment::new(name, "control", Target::model(""));
    if fields.contains_key("v") {
        reader.check_version()?;
        experiment.arms = reader.required::<Vec<Arm>>("arms")?;
        experiment.status = reader.optional("status")?.unwrap_or_default();
        experiment.bucketing = reader.required("bucketing")?;
        experiment.bucket_version =
            reader.optional("bucket_version")?.unwrap_or(experiment.bucket_version);
        experiment.total = reader.optional("total")?.unwrap_or(experiment.total);
        if let Some(unit) = fields.get("unit") {
            experiment.unit.clone_from(unit);
        }
        experiment.salts = reader.optional("salts")?;
        experiment.eligible = reader.optional("eligible")?.unwrap_or(experiment.eligible);
        experiment.exclusion = reader.optional("exclusion")?;
        experiment.targeting = reader.optional("targeting")?;
        experiment.overrides = reader.optional("overrides")?.unwrap_or_default();
    } else {
        experiment.arms = reader.plain_arms()?;
    }
    experiment.start = reader.optional("start_time")?;
    experiment.end = reader.optional("end_time")?;
    experiment.revision = reader.optional("revision")?.unwrap_or(0);
    experiment.check().map_err(|error| Error::record(what.clone(), error.to_string()))?;
    Ok(experiment)
}

pub(crate) fn of_flag(flag: &Flag) -> Result<Vec<(&'static str, String)>> {
    let Flag { enabled, unit, variants, rules, otherwise, off, .. } = flag;
    Ok(vec![
        ("v", FORMAT_VERSION.to_owned()),
        ("enabled", json(enabled)?),
        ("unit", unit.clone()),
        ("variants", json(variants)?),
        ("rules", json(rules)?),
        ("otherwise", json(otherwise)?),
        ("off", off.clone()),
    ])
}

pub(crate) fn to_flag(name: &str, fields: &Fields) -> Result<Flag> {
    let what = format!("flag {name}");
    let reader = Reader { what: &what, fields };
    reader.check_version()?;
    let mut flag = Flag::new(name, reader.text("off")?, false);
    flag.enabled = reader.required("enabled")?;
    flag.unit = reader.text("unit")?;
    flag.variants = reader.required("variants")?;
    flag.rules = reader.required("rules")?;
    flag.otherwise = reader.required("otherwise")?;
    flag.revision = reader.optional("revision")?.unwrap_or(0);
    flag.check().map_err(|error| Error::record(what.clone(), error.to_string()))?;
    Ok(flag)
}

struct Reader<'r> {
    what: &'r str,
    fields: &'r Fields,
}

impl Reader<'_> {
    fn check_version(&self) -> Result<()> {
        match self.fields.get("v").map(String::as_str) {
            Some(FORMAT_VERSION) => Ok(()),
            Some(other) => Err(self.problem(format!(
                "it has version {other} and this release reads {FORMAT_VERSION}: upgrade this service"
            ))),
            None => Err(self.problem("it has no version".to_owned())),
        }
    }

    fn text(&self, name: &str) -> Result<String> {
        let text = self.fields.get(name).cloned();
        text.ok_or_else(|| self.problem(format!("the field {name} is missing")))
    }

    fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.optional(name)?;
        value.ok_or_else(|| self.problem(format!("the field {name} is missing")))
    }

    fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.fields.get(name) else { return Ok(None) };
        let value = serde_json::from_str(text);
        value.map(Some).map_err(|error| self.problem(format!("the field {name}: {error}")))
    }

    /// Two arms, whose weights stand in `traffic_split`.
    fn plain_arms(&self) -> Result<Vec<Arm>> {
        let split = self.text("traffic_split")?;
        let weights = split.split_once(':').and_then(|(control, treatment)| {
            Some((control.trim().parse::<u64>().ok()?, treatment.trim().parse::<u64>().ok()?))
        });
        let Some((control, treatment)) = weights.filter(|(a, b)| {
            a.checked_add(*b).is_some_and(|sum| (1..=u64::from(u32::MAX)).contains(&sum))
        }) else {
            return Err(
                self.problem(format!("traffic_split is `{split}`, not two weights such as 90:10"))
            );
        };
        let share = treatment * u64::from(TOTAL) / (control + treatment);
        let bound = TOTAL.saturating_sub(u32::try_from(share).unwrap_or(TOTAL));
        let arm = |name: &str, model, ranges| -> Result<Arm> {
            let target = Target::model(self.text(model)?);
            Ok(Arm { name: name.to_owned(), target, ranges })
        };
        Ok(vec![
            arm("control", "control_model", Ranges::upto(bound))?,
            arm("treatment", "treatment_model", Ranges::of(bound, TOTAL))?,
        ])
    }

    fn problem(&self, problem: String) -> Error {
        Error::record(self.what, problem)
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::invalid("a definition", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucketing::Bucketing;
    use crate::{Condition, Serve, Status};
    use proptest::prelude::*;

    fn fields(list: Vec<(&'static str, String)>) -> Fields {
        list.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    #[test]
    fn records_come_back() {
        let plain = Experiment::new("e", "a", Target::model("m"));
        let full = Experiment::new("naïve {e}", "a", Target::alias("m", "champion"))
            .with_arm("b", Target::version("m", "2"), 1_000)
            .unwrap()
            .with_arm("c", Target::model("n"), 1)
            .unwrap()
            .with_eligible(5_000)
            .with_bucketing(Bucketing::Eppo)
            .with_bucket_version(3)
            .with_salts("s", "t")
            .with_unit("session")
            .with_exclusion("g", 10, 20)
            .with_start(1)
            .with_end(2)
            .with_targeting(Condition::is("plan", "pro"))
            .with_override("me", "b")
            .with_status(Status::Concluded("b".to_owned()));
        for experiment in [plain, full] {
            experiment.check().unwrap();
            let stored = fields(of_experiment(&experiment).unwrap());
            assert_eq!(to_experiment(&experiment.name, &stored).unwrap(), experiment);
        }
        let flag = Flag::boolean("f")
            .with_rule(Condition::is("plan", "pro"), Serve::Variant("on".into()))
            .with_otherwise(Serve::Split(vec![("on".into(), 1), ("off".into(), 9)]));
        assert_eq!(to_flag("f", &fields(of_flag(&flag).unwrap())).unwrap(), flag);
    }

    #[test]
    fn the_plain_form_is_read() {
        let plain = [
            ("control_model", "recommendation-v3"),
            ("treatment_model", "recommendation-v4"),
            ("traffic_split", "90:10"),
            ("start_time", "1706140800"),
            ("end_time", "1706745600"),
        ];
        let stored = fields(plain.map(|(name, text)| (name, text.to_owned())).to_vec());
        let experiment = to_experiment("rec-model-v4", &stored).unwrap();
        assert_eq!((experiment.weight("control"), experiment.weight("treatment")), (9_000, 1_000));
        assert_eq!(experiment.arms()[1].target, Target::model("recommendation-v4"));
        assert_eq!((experiment.start, experiment.end), (Some(1_706_140_800), Some(1_706_745_600)));
        for split in ["", "90", "a:b", "0:0", "-1:2", "18446744073709551615:1"] {
            let mut stored = stored.clone();
            stored.insert("traffic_split".into(), split.into());
            assert!(matches!(to_experiment("e", &stored), Err(Error::Record { .. })), "{split}");
        }
    }

    proptest! {
        #[test]
        fn no_fields_panic(stored in prop::collection::hash_map(
            prop::sample::select(vec!["v", "arms", "status", "bucketing", "eligible", "total", "unit", "variants", "rules",
                "otherwise", "off", "enabled", "traffic_split", "control_model", "overrides", "revision"]),
            prop::sample::select(vec!["1", "2", "", "[]", "{}", "\"flagd2\"", "[[0,5]]", "[[5,0]]", "[[0,4294967295]]",
                "[{\"name\":\"a\",\"target\":{\"model\":{\"model\":\"m\"}},\"ranges\":[[0,4294967295]]}]", "90:10", "true"]), 0..12)
        ) {
            let stored: Fields = stored.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
            let _ = to_experiment("e", &stored);
            let _ = to_flag("f", &stored);
        }
    }
}
