//! What makes a view a page: its title, its place in the navigation, what it watches.

use askama::Template;

use crate::urls::topic;
use crate::view::{
    AccountPage, AuditPage, DeliveriesPage, DeploymentPage, ErrorPage, HomePage, LoginPage,
    ProjectPage, RunPage, RunnersPage, SecretsPage, ServicePage, UsersPage,
};

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The matrix and everything below a project.
    Home,
    /// Webhook deliveries.
    Deliveries,
    /// Runners.
    Runners,
    /// Users, for admins.
    Users,
    /// The viewer's own account.
    Account,
    /// The audit list.
    Audit,
    /// Pages outside the navigation.
    Outside,
}

impl Section {
    /// Whether the navigation marks this entry.
    pub(crate) fn is(self, name: &str) -> bool {
        let own = match self {
            Self::Home => "home",
            Self::Deliveries => "deliveries",
            Self::Runners => "runners",
            Self::Users => "users",
            Self::Account => "account",
            Self::Audit => "audit",
            Self::Outside => "",
        };
        own == name
    }
}

/// A view that is a whole page.
pub trait Page: Template {
    /// The document's title, without the product's name.
    fn title(&self) -> String;

    /// Where the page is in the navigation.
    fn section(&self) -> Section;

    /// What the page watches on [`crate::urls::route::EVENTS`], if it changes by itself.
    fn topic(&self) -> Option<String>;
}

/// The page as HTML.
///
/// # Errors
/// Only when formatting fails, which does not happen with the types of this house; the error
/// is handed on so that nobody has to trust that.
pub fn render<P: Page>(page: &P) -> Result<String, askama::Error> {
    page.render()
}

impl Page for HomePage {
    fn title(&self) -> String {
        "Home".to_owned()
    }

    fn section(&self) -> Section {
        Section::Home
    }

    fn topic(&self) -> Option<String> {
        Some(topic::ALL.to_owned())
    }
}

impl Page for ProjectPage {
    fn title(&self) -> String {
        self.project.clone()
    }

    fn section(&self) -> Section {
        Section::Home
    }

    fn topic(&self) -> Option<String> {
        Some(topic::project(&self.project))
    }
}

impl Page for RunPage {
    fn title(&self) -> String {
        format!(
            "{} {} · {}",
            self.run.project,
            self.run.name,
            self.run.state.word()
        )
    }

    fn section(&self) -> Section {
        Section::Home
    }

    fn topic(&self) -> Option<String> {
        Some(topic::run(&self.run.id))
    }
}

impl Page for DeploymentPage {
    fn title(&self) -> String {
        let deployment = &self.deployment;
        format!(
            "{} {} in {} · {}",
            deployment.service,
            deployment.release,
            deployment.environment,
            deployment.state.word()
        )
    }

    fn section(&self) -> Section {
        Section::Home
    }

    fn topic(&self) -> Option<String> {
        Some(topic::deployment(&self.deployment.id))
    }
}

impl Page for ServicePage {
    fn title(&self) -> String {
        format!(
            "{} in {} · {}",
            self.service, self.cell.environment, self.project
        )
    }

    fn section(&self) -> Section {
        Section::Home
    }

    fn topic(&self) -> Option<String> {
        Some(topic::project(&self.project))
    }
}

impl Page for DeliveriesPage {
    fn title(&self) -> String {
        "Deliveries".to_owned()
    }

    fn section(&self) -> Section {
        Section::Deliveries
    }

    fn topic(&self) -> Option<String> {
        Some(topic::ALL.to_owned())
    }
}

impl Page for RunnersPage {
    fn title(&self) -> String {
        "Runners".to_owned()
    }

    fn section(&self) -> Section {
        Section::Runners
    }

    fn topic(&self) -> Option<String> {
        Some(topic::ALL.to_owned())
    }
}

impl Page for AccountPage {
    fn title(&self) -> String {
        "Your account".to_owned()
    }

    fn section(&self) -> Section {
        Section::Account
    }

    fn topic(&self) -> Option<String> {
        None
    }
}

impl Page for SecretsPage {
    fn title(&self) -> String {
        format!("{} · secrets", self.project)
    }

    fn section(&self) -> Section {
        Section::Home
    }

    fn topic(&self) -> Option<String> {
        None
    }
}

impl Page for UsersPage {
    fn title(&self) -> String {
        "Users".to_owned()
    }

    fn section(&self) -> Section {
        Section::Users
    }

    fn topic(&self) -> Option<String> {
        None
    }
}

impl Page for AuditPage {
    fn title(&self) -> String {
        "Audit".to_owned()
    }

    fn section(&self) -> Section {
        Section::Audit
    }

    fn topic(&self) -> Option<String> {
        None
    }
}

impl Page for LoginPage {
    fn title(&self) -> String {
        "Sign in".to_owned()
    }

    fn section(&self) -> Section {
        Section::Outside
    }

    fn topic(&self) -> Option<String> {
        None
    }
}

impl Page for ErrorPage {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn section(&self) -> Section {
        Section::Outside
    }

    fn topic(&self) -> Option<String> {
        None
    }
}
