//! What the bot asks of the server, and what the answers mean.

use std::time::Duration;

use reqwest::{Response, StatusCode};

/// Below the time for which a lease renews itself: a request is over before its claim can be another's.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a post.
pub(crate) enum Answer {
    /// It is posted now, with this number.
    Posted(String),
    /// It was posted before.
    Found(String),
    /// It is not posted.
    Refused(String),
    /// The server may have taken it, or not.
    Unknown(reqwest::Error),
}

pub(crate) struct Client {
    http: reqwest::Client,
    address: String,
}

impl Client {
    pub(crate) fn new(address: &str) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { http, address: address.to_owned() })
    }

    /// Returns the ids on a page of the feed, one a line.
    pub(crate) async fn page(&self, page: usize) -> reqwest::Result<String> {
        self.get(&format!("/feed/{page}")).await?.error_for_status()?.text().await
    }

    pub(crate) async fn post(&self, id: &str) -> Answer {
        self.try_post(id).await.unwrap_or_else(Answer::Unknown)
    }

    /// Posts the item unless the server has it.
    pub(crate) async fn find_or_post(&self, id: &str) -> Answer {
        match self.find(id).await {
            Ok(Some(number)) => Answer::Found(number),
            Ok(None) => self.post(id).await,
            Err(e) => Answer::Unknown(e),
        }
    }

    async fn try_post(&self, id: &str) -> reqwest::Result<Answer> {
        let answer = self.http.post(format!("{}/posts/{id}", self.address)).send().await?;
        // The one status by which this server says that it took nothing. A 500 or a lost connection does not tell.
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(Answer::Refused(answer.status().to_string()));
        }
        answer.error_for_status()?.text().await.map(Answer::Posted)
    }

    /// Returns the number of the item's post, if there is one.
    async fn find(&self, id: &str) -> reqwest::Result<Option<String>> {
        let answer = self.get(&format!("/posts/{id}")).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.error_for_status()?.text().await.map(Some)
    }

    async fn get(&self, path: &str) -> reqwest::Result<Response> {
        self.http.get(format!("{}{path}", self.address)).send().await
    }
}
