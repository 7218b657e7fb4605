//! What `enable` must be allowed to do.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use uimgacc_objects::names;

use super::{Check, Outcome};
use crate::Cluster;

/// Group, resource, and whether it lies in our namespace.
const NEEDED: [(&str, &str, bool); 10] = [
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("", "serviceaccounts", true),
    ("apps", "deployments", true),
    ("policy", "poddisruptionbudgets", true),
    ("", "secrets", true),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        false,
    ),
    (names::GROUP, "imageaccelerations", false),
];

impl Cluster {
    pub(super) async fn check_rights(&self) -> Vec<Check> {
        let section = "Rights";
        let title = "you may enable";
        let reviews = self.all::<SelfSubjectAccessReview>();
        let mut refused = Vec::new();
        for (group, resource, is_ours) in NEEDED {
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        group: Some(group.to_owned()),
                        resource: Some(resource.to_owned()),
                        // Server-side apply is a patch; where there is nothing yet, a create too.
                        verb: Some("create".to_owned()),
                        namespace: is_ours.then(|| names::NAMESPACE.to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            match reviews.create(&PostParams::default(), &review).await {
                Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
                Ok(_) => refused.push(resource),
                Err(error) => {
                    return vec![Check::of_error(
                        section,
                        title,
                        &self.failed("ask what you may do")(error),
                    )];
                }
            }
        }
        if refused.is_empty() {
            return vec![Check::pass(section, title, "")];
        }
        vec![Check::new(
            section,
            title,
            Outcome::Fail,
            &format!("you may not create {}", refused.join(", ")),
            "use an account with the role cluster-admin",
        )]
    }
}
