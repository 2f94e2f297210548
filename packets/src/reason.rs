//! Reason codes of 5.0 and their 3.1.1 counterparts.

macro_rules! reason_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal,)*) => {
        /// A reason code of MQTT 5.0. Below 0x80 is success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[doc = $doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code with this number, if the standard defines it.
            #[must_use]
            pub fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reason_codes! {
    /// Success, normal disconnection, or granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04,
    /// Accepted, but nobody subscribes.
    NoMatchingSubscribers = 0x10,
    /// UNSUBSCRIBE found no such subscription.
    NoSubscriptionExisted = 0x11,
    /// AUTH: go on.
    ContinueAuthentication = 0x18,
    /// AUTH: begin again.
    ReAuthenticate = 0x19,
    /// No reason given.
    UnspecifiedError = 0x80,
    /// The packet cannot be parsed.
    MalformedPacket = 0x81,
    /// The packet is not allowed here or contradicts itself.
    ProtocolError = 0x82,
    /// Valid, but this server does not do it.
    ImplementationSpecificError = 0x83,
    /// The protocol level is not supported.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not allowed.
    ClientIdentifierNotValid = 0x85,
    /// User name or password refused.
    BadUserNameOrPassword = 0x86,
    /// The client may not do this.
    NotAuthorized = 0x87,
    /// The server cannot serve now.
    ServerUnavailable = 0x88,
    /// The server is busy: try later.
    ServerBusy = 0x89,
    /// The client has been banned.
    Banned = 0x8a,
    /// The server shuts down.
    ServerShuttingDown = 0x8b,
    /// The authentication method is not supported or has changed.
    BadAuthenticationMethod = 0x8c,
    /// Nothing was received for 1.5 times the keep alive.
    KeepAliveTimeout = 0x8d,
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8e,
    /// The topic filter is well formed but not accepted.
    TopicFilterInvalid = 0x8f,
    /// The topic name is well formed but not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use already.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged publications than the receive maximum.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is zero or above the maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the maximum.
    PacketTooLarge = 0x95,
    /// Messages come too fast.
    MessageRateTooHigh = 0x96,
    /// A limit was exceeded.
    QuotaExceeded = 0x97,
    /// Ended by an administrator.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not supported.
    RetainNotSupported = 0x9a,
    /// The QoS is above the maximum.
    QosNotSupported = 0x9b,
    /// Use another server for now.
    UseAnotherServer = 0x9c,
    /// Use another server from now on.
    ServerMoved = 0x9d,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9e,
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9f,
    /// The time allowed for this connection is over.
    MaximumConnectTime = 0xa0,
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xa1,
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xa2,
}

impl ReasonCode {
    /// Whether the code reports a failure (0x80 and above).
    #[inline]
    #[must_use]
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code of 3.1 and 3.1.1 for this code; `None` where those versions have
    /// none and the connection is closed without a CONNACK \[MQTT-3.2.2-6 of 3.1.1\].
    #[must_use]
    pub fn connect_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => Some(5),
            _ => None,
        }
    }

    /// The reason code that a return code of 3.1 or 3.1.1 stands for.
    #[must_use]
    pub fn from_connect_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}
