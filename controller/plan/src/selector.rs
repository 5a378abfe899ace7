//! Label selectors, as the Kubernetes API defines them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether labels satisfy a selector; an empty selector is satisfied by every set of labels.
/// `None`: an operator is unknown to this version, so nobody can say.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<bool> {
    let by_label = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let mut by_expression = true;
    for requirement in selector.match_expressions.iter().flatten() {
        let value = labels.get(&requirement.key);
        let values = requirement.values.as_deref().unwrap_or_default();
        by_expression &= match requirement.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => value.is_none_or(|value| !values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => return None,
        };
    }
    Some(by_label && by_expression)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "app".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn every_operator() {
        let web = labels(&[("app", "web")]);
        let none = labels(&[]);
        let table = [
            ("In", &["web"][..], Some(true), Some(false)),
            ("NotIn", &["web"][..], Some(false), Some(true)),
            ("Exists", &[][..], Some(true), Some(false)),
            ("DoesNotExist", &[][..], Some(false), Some(true)),
            ("Resembles", &["web"][..], None, None),
        ];
        for (operator, values, with, without) in table {
            assert_eq!(
                matches(&expression(operator, values), &web),
                with,
                "{operator}"
            );
            assert_eq!(
                matches(&expression(operator, values), &none),
                without,
                "{operator}"
            );
        }
    }

    #[test]
    fn empty_selects_all_and_labels_are_anded() {
        assert_eq!(matches(&LabelSelector::default(), &labels(&[])), Some(true));
        let both = LabelSelector {
            match_labels: Some(labels(&[("app", "web"), ("tier", "front")])),
            match_expressions: None,
        };
        assert_eq!(matches(&both, &labels(&[("app", "web")])), Some(false));
        assert_eq!(
            matches(
                &both,
                &labels(&[("app", "web"), ("tier", "front"), ("x", "y")])
            ),
            Some(true)
        );
    }
}
