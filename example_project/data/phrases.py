"""What customers of the shop write, and which data set may use which words.

A pattern is one sentence: `[a|b]` is a choice, `{item}`, `{gadget}` and `{order}` are filled in. A pattern stands for many sentences, and
each of them belongs to one data set, by a hash of its words: half to `base`, what the base model is trained on, and a quarter each to
`train` and `holdout`, the golden cases. So the sets speak one language, and share no sentence. Openings, closings, products and order
numbers are split by hand.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from dataclasses import dataclass

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_OWNERS = ("base", "base", "train", "holdout")


@dataclass(frozen=True, kw_only=True)
class Fillers:
    """What one data set puts around its sentences, and into them."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    items: tuple[str, ...]
    gadgets: tuple[str, ...]
    orders: tuple[int, int]


@functools.cache
def sentences(pattern: str, owner: str) -> tuple[str, ...]:
    """The sentences of a pattern that belong to one data set, none where the hash gave it none.

    >>> sentences("It is [urgent|very urgent]", "train"), sentences("It is [urgent|very urgent]", "holdout")
    (('It is very urgent',), ('It is urgent',))
    """
    parts = [part.split("|") if number % 2 else [part] for number, part in enumerate(_CHOICE.split(pattern))]
    every = ("".join(chosen) for chosen in itertools.product(*parts))
    return tuple(sentence for sentence in every if owner_of(sentence) == owner)


def owner_of(sentence: str) -> str:
    """The data set that a sentence belongs to."""
    return _OWNERS[hashlib.sha256(sentence.encode()).digest()[0] % len(_OWNERS)]


TOPICS: dict[str, tuple[str, ...]] = {
    "payment": (
        "You [charged|billed|debited] [me|my card|my account] [twice|two times|double] for [the|my|one] {item}",
        "The [amount|sum|total|price] on [my|the] [invoice|bill|receipt|statement] is [wrong|too high|not correct|higher than agreed]",
        "My [card|payment|credit card] was [declined|refused|rejected] at [the checkout|checkout] for [the|a] {item}",
        "The [refund|money|credit] for order {order} has [not arrived|never arrived|not reached my bank|not come back]",
        "I [paid|have paid] by [transfer|card|voucher] but [the|your] [order|system] [says|shows] unpaid",
        "Please [send|email] [me|us] [the|an|a corrected] [invoice|receipt|bill] for order {order}",
        "A [voucher|discount|coupon|code] was [not|never] [taken off|deducted from|applied to] [the price|the bill|my payment]",
        "[Why was|Why is] [my card|my bank account|my statement] [charged|debited|billed] [on|for] order {order}",
        "[Where is|When do I get|I wait for] [my money|my refund|the refund] [you owe me|of order {order}]",
        (
            "I [tried to pay|was paying|wanted to pay] [with|by] [my card|credit card] and [the checkout|the "
            "till|your page] [refused|declined|rejected] it"
        ),
        "The [price|amount|total] [I was told|shown] [is not|differs from] what [was charged|the receipt shows]",
        "I see that my card was [charged|debited] double for a single {item}",
        "On the [invoice|bill] for {order} the total is [too high|wrong]",
        "Checkout [declined|rejected] my credit card when I tried to pay for the {item}",
        "Where is the [refund|money] that you owe me for {order}",
        "My discount [code|voucher] was never applied when I paid the {item}",
        "The receipt of {order} shows an amount that I was never told",
        "For one {item} you billed me two times",
        "Why is the price on my statement higher than on the bill for number {order}",
        "Paying with my card was refused at the till page for a {item}",
        "I still wait for my money, the refund of number {order} never reached my account at the bank",
        "The coupon was never deducted from what I paid for the {item}",
        "Send me a corrected invoice for number {order} as the sum is wrong",
    ),
    "shipping": (
        "My [parcel|package|delivery|order] with the {item} [is late|is delayed|has not arrived|is still missing|never came]",
        "The [tracking|tracking number|tracking page] for order {order} [is stuck|does not move|shows nothing|has not changed]",
        "The [courier|driver|carrier|postman] [left|dropped|put] the [parcel|package|box] [at the wrong|at another] [address|house|door]",
        "I [want|need|would like] to change the [delivery|shipping] address [of|for] order {order}",
        "[When|On which day] will [the|my] {item} [be shipped|be delivered|arrive|leave your warehouse]",
        "The [box|parcel|package] [came|arrived|was delivered] [wet|open|crushed|torn]",
        "Only [half|one part|some] of order {order} was [delivered|shipped|in the parcel]",
        "The [delivery|parcel] was [sent back|held|lost] by the [courier|carrier|customs|depot]",
        "[Where is|I wait for] my [parcel|package|delivery]",
        "[Two weeks|Ten days|Many days] have passed and [no parcel|no package|nothing] [came|arrived|was delivered]",
        "Please [ship|deliver|send] order {order} to [my new|another|a different] address",
        "[Part|One half] of [the order|order {order}] is [not in the box|missing from the parcel|not shipped]",
        "Two weeks have passed and the parcel with my {item} [has not arrived|is still missing]",
        "Tracking of {order} has been stuck in the same depot since Monday",
        "A courier dropped my package with the {item} at the wrong house",
        "Can the delivery address of {order} still be changed to my new flat",
        "The box around the {item} arrived [crushed|wet] and half open",
        "Part of {order} was shipped but the {item} was not in the parcel",
        "It is late: the delivery of my {item} should have come on Friday",
        "The tracking page says nothing new about number {order}",
        "Somewhere the carrier lost the package that holds the {item}",
        "I moved, so please ship number {order} to another address",
        "When does the {item} leave the warehouse to be delivered",
        "A torn and open box was left at the door by the driver, with the {item} inside",
    ),
    "return": (
        "I [want|would like|wish] to [return|send back|give back] the {item}",
        "The {item} is [too small|too big|the wrong size|the wrong colour] and I want to [exchange|swap] it",
        "How do I [print|get|find] [a|the] return [label|form|slip] for order {order}",
        "[Can|May] I [return|exchange|swap|send back] [a|the] {item} [without|that has lost] [the box|its packaging|the receipt]",
        "I [changed my mind|do not like it|no longer need it] and [want to send it back|want to return it]",
        "You [sent|shipped] me [the wrong|another] {item} so I [am returning|will return|return] it",
        "[Is|Was] my return of order {order} [received|booked in|accepted]",
        "The [return|exchange] [period|window|deadline] for the {item} [ends|is over] soon",
        "The {item} does not [suit|fit|please] [me|us] so it [goes|has to go] back",
        "I [posted|sent] [the return|my return|the {item} back] but [you have not received it|it is not booked in]",
        "[Could|May] [I|we] [swap|exchange] it for [a bigger|a smaller|another] size",
        "This {item} does not suit us and I would like to send it back",
        "I need a return label so that {order} can go back to you",
        "Could I swap my {item} for a bigger size",
        "The {item} you shipped is the wrong colour and I want to exchange it",
        "Have you received the return that I posted for {order}",
        "I changed my mind about the {item} and wish to return it within the window",
        "How can I give back a {item} that is too small",
        "Where do I print the return slip of number {order}",
        "We no longer need the {item}, may we return it without its packaging",
        "You sent the wrong {item} and so it goes back for an exchange",
        "Was the {item} booked in as a return, I did send it back",
        "I do not like the {item} and want to swap it for another size",
    ),
    "account": (
        "I [forgot|lost|cannot reset] my password [and cannot|so I cannot] [log in|sign in]",
        "[Please|Kindly] [change|update] the [email|e-mail|phone number|name] [in|on|of] my [account|profile]",
        "[Delete|Close|Remove] my [account|profile|login] [please|for good]",
        "I [cannot|can not|am unable to] [log in|sign in|get into my account] [since the update|any more|on my phone]",
        "[Unsubscribe|Remove] me from [the newsletter|your newsletter|your mailing list]",
        "The [login|sign in|reset] [link|code|page] [does not work|has expired|shows an error]",
        "My [points|loyalty points|order history|wish list] [are|is] [gone from|missing in|not shown in] my [account|profile]",
        "I have [two|double] [accounts|profiles|logins] and want [to merge them|only one]",
        "[Merge|Join] my two [accounts|profiles]",
        "My [email|phone number|name] [has changed|is a new one] so [update|change] my [account|profile]",
        "I [cannot|can no longer] [get in|log in|sign in] [because|as] I [lost|forgot] [the|my] password",
        "[Please close|I want you to delete] [my account|my profile|the login]",
        "My password is lost and the reset link has expired",
        "Would you update the email in my profile to a new one",
        "I want my account deleted and closed for good",
        "Since yesterday I am unable to sign in on my [phone|tablet]",
        "Please take me off your mailing list for the newsletter",
        "All loyalty points are missing in my profile",
        "The code to log in shows an error each time",
        "I forgot which password I use and cannot get in",
        "Close my profile and remove the login",
        "My phone number has changed, kindly change it in the account",
        "Why is my wish list gone from the account after the update",
        "Merge my two profiles into one account",
    ),
    "product": (
        "The {item} [stopped working|does not work|broke|is broken|is faulty] [after a week|after a month|on the first day]",
        "A [screw|part|leg|handle|piece] [of|for] the {item} [is missing|broke off|came loose|is bent]",
        "How do I [assemble|build|clean|install|set up] the {item}",
        "I [need|lost|cannot find] the [manual|instructions|guide] [of|for] the {item}",
        "The [colour|paint|fabric|surface] of the {item} [faded|peels|is scratched|has a stain]",
        "The {item} [makes a|has a] [strange|loud|odd] [noise|sound|smell]",
        "[Which|What] battery [goes into|fits|does one put into] the {gadget}",
        "[Do you have|Can I get] a spare [part|handle|cover|battery] for my {item}",
        "The {item} [broke|is faulty|stopped working] and I want [help|advice] [with it|on repair]",
        "[Where is|Send me] [a guide|the manual|the instructions] [on|for] how to [clean|assemble|set up|install] the {item}",
        "I [could not|cannot] [work out|understand] [the manual|the instructions|how to build it]",
        "[There is|I hear] a [loud noise|strange sound|odd sound] [from|in] the {item}",
        "After only a month my {item} [broke|is faulty]",
        "One [screw|leg] for the {item} is missing in the set",
        "I cannot work out how to assemble the {item} and the manual is no help",
        "The paint on my {item} peels and the surface is scratched",
        "There is a loud noise from the {item} and it stopped working",
        "Could I get a spare handle for a {item} from last year",
        "My new {item} is broken, it never did work",
        "The handle broke off the {item} and came loose",
        "Please send instructions to set up and install the {item}",
        "A stain is on the fabric of the {item} and the colour faded",
        "What can I do about the odd sound of the {item}",
        "I cannot find a guide on how to clean the {item}",
    ),
    "fraud": (
        "[Somebody|Someone|A stranger] [ordered|bought] [a|the] {item} [with|through|on] my account",
        "My [card|credit card] was [stolen|hacked|copied] and used [in your shop|at your store]",
        "I got a [phishing|fake|suspicious] [mail|email|message] [in your name|that asks for my password]",
        "There is an [order|invoice] {order} [I never placed|I did not make|unknown to me] [on|in] my account",
        "[My account was|My login was] [hacked|taken over|stolen] [and|then] the address [was changed|is now a stranger's]",
        "[A fake|A fraudulent] [shop|page|site] [sells|offers] your {item} and [stole|took] my [data|card number]",
        "A [stranger|thief|fraudulent person] [used|took over|hacked] my [login|card|account] [to order|to buy] a {item}",
        "I [did not make|never placed|know nothing of] [this purchase|the order {order}] and [think it is fraud|someone stole my card]",
        "[A|Your] [message|mail] [looks|seems] [fake|like phishing|suspicious] [and|as it] [wants|asks for] my [card number|password]",
        "A stranger placed {order} through my account and I never did",
        "Your mail asks for my password and looks fake like phishing",
        "My stolen credit card was used to buy a {item} at your store",
        "The login of my account was hacked and a {item} was bought",
        "Someone took over my login and ordered a {item}",
        "I did not make the purchase {order}, a fraudulent person did with a stolen card",
        "A suspicious message in your name wants my card number, it is phishing",
        "There is an unknown invoice in my account and I think it was hacked",
    ),
    "accident": (
        "My [child|son|daughter|hand] was [hurt|injured|cut] by the {item}",
        "The {item} [fell|collapsed|broke] and I [was injured|am injured|had to see a doctor]",
        "I [cut|burned|hurt] my [finger|hand|arm|foot] on the {item}",
        "The {item} [gave me|caused] [a rash|an electric shock|a burn|an allergy]",
        "[There was|We had] [an accident|an injury] with the {item}",
        "The [glass|edge|blade] of the {item} [splintered|broke] and [someone bled|there was blood]",
        "After [touching|using] the {item} my [son|child|arm|foot] [had a burn|was burned|got a shock|got a rash]",
        "[My son|My daughter|I] had to see a doctor [because|as] the {item} [fell|broke|collapsed|splintered]",
        "[An injury|A cut|A burn] [came from|was caused by] the [edge|glass|blade] of the {item}",
        "The {item} collapsed and my daughter was hurt",
        "I burned my arm on the {item} and had to see a doctor",
        "We had an injury at home because the edge of the {item} cut my hand",
        "Touching the {item} gave my son an electric shock",
        "My foot was injured when the {item} fell",
        "The {item} caused a rash and my child had to see the doctor",
        "Blood everywhere, the glass of the {item} splintered and cut my finger",
        "After an accident with your {item} I have a burn on the hand",
    ),
    "presale": (
        "[Is|Are] the {item} [in stock|available|sold] [again|now|at the moment]",
        "When will the {item} be [back in stock|available again|on sale]",
        "[Do you|Does your shop] [sell|offer|have] [gift cards|a {item}|the {item} in green]",
        "What [is the size|is the weight|are the measures|is the height] of the {item} [you offer|you sell]",
        "[Before I buy|Before ordering] [I want to know|tell me] [whether|if] the {item} [is waterproof|fits a small flat|is made of wood]",
        "[Is there|Do you give] [a discount|a student discount|a better price] on [the|a] {item}",
        "[Will|Does] the {item} [come|be available] [in|in the colour] [green|blue|red] [this month|again]",
        "I [want to know|wonder|ask] [if|whether] [you have|you sell|there is] a {item} [in stock|in green|on sale] before I [buy|order]",
        "[Which|What] [height|size|weight] has [the|your] {item}",
        "[A|Is a] [better price|discount] on the {item} for [students|many pieces]",
        "Will the {item} be available again this month",
        "I want to know if a {item} in green is in stock before I buy",
        "Is there a better price on the {item} for students",
        "What is the weight of the {item} that you sell",
        "Do you have the {item} in stock at the moment",
        "Before ordering, tell me whether the {item} is waterproof",
        "When is the {item} on sale with a discount",
        "Which height has the {item} you offer, does it fit a small flat",
    ),
    "complaint": (
        "Your [agent|colleague|employee|hotline] was [rude|unfriendly|impolite] [to me|on the phone]",
        "I am [very unhappy|disappointed|angry] [with|about] your [service|staff|shop]",
        "The [driver|courier] [shouted at|insulted] [me|my wife|my mother]",
        "Your [advert|website|shop] [lies|is misleading|promises too much]",
        "I want to [complain|make a complaint] about your [staff|service|hotline|manners]",
        "[Nobody|No one] at your [hotline|shop|desk] [listens|is polite|is friendly]",
        "[People|The staff|Agents] at [your hotline|your shop] are [unfriendly|rude|impolite|not friendly]",
        "[One of your|Your] [agents|drivers|staff] [insulted|shouted at|was rude to] [my mother|my wife|me] [at the door|on the phone]",
        "Your [advert|website] [is misleading|lies|promises too much] and I am [disappointed|unhappy|angry]",
        "[I make|This is] a complaint [about|against] [an employee|an agent|the staff] [of yours|at your shop]",
        "One of your agents was rude to me and I want to complain about the staff",
        "I am angry about the unfriendly people at your hotline",
        "Your driver insulted my mother at the door",
        "The advert for your shop is misleading and I am disappointed",
        "I make a complaint because an employee of yours was impolite on the phone",
        "No one on your staff is friendly and I am very unhappy with the service",
        "The courier shouted at my wife and was rude",
        "Your website promises too much and lies",
    ),
}

RULES: dict[str, tuple[str, ...]] = {
    "chargeback": (
        "A chargeback [is|was|has been] [open|started|running|made] [at|by|with] [my bank|the bank|the card company]",
        "My [bank|card company] [made|has made|opened|started|filed] [a|the] [chargeback|dispute]",
        "I [disputed|dispute|let them dispute] this [charge|debit|payment] [at|with] [the|my] bank",
        "There is a [bank dispute|dispute|chargeback] [about it|on it|over this|for this]",
        "[I asked for|I told them to file|I filed|I want] a [chargeback|dispute] [already|now|last week|meanwhile]",
        "[The|This|A] [dispute|chargeback] [goes on|runs|happens|is going on] [at|with] [my|the] bank",
        "I have [already asked|now asked] my bank for a [chargeback|dispute]",
        "My bank has opened a [chargeback|dispute] on this",
        "The charge is [disputed|in dispute] at my bank now",
        "A [chargeback|dispute] has been filed with the card company",
        "I told the bank to dispute the debit",
        "If nothing happens my bank goes on with the chargeback",
        "Meanwhile a chargeback runs at the bank",
        "I let my bank dispute it",
        "The card company started the chargeback for me",
        "My bank told me that the dispute is open",
        "A dispute of this debit has been filed by the bank",
    ),
    "battery": (
        "[The|Its|My|Our] battery [is|gets|became|looks] [swollen|hot|burnt|very hot|too hot]",
        "The battery [of|in|from] [the|my|our] {gadget} [is overheating|is leaking|smells|smokes|leaks]",
        "[There is|I saw|We see] smoke [from|out of|around] the [battery|battery pack]",
        "A [swollen|leaking|smoking|overheating] battery [is in|comes with|sits in] [the|my|our] {gadget}",
        "[Something|A liquid|Smoke] [leaks|comes|is coming] [from|out of] [the|its] battery",
        "[When charging|While charging], the battery [gets hot|swells|is burning|smokes]",
        "The battery of the {gadget} is [swollen and hot|swollen]",
        "Its battery now [gets very hot|is leaking badly]",
        "I saw smoke from the battery of my {gadget}",
        "The {gadget} with it has a swollen battery",
        "The battery pack smells burnt and [is hot|smokes]",
        "Also the battery in the {gadget} is overheating",
        "Besides, the battery has become hot and swollen",
        "There is smoke coming out of the {gadget} battery",
        "The swollen battery lifts the cover of the {gadget}",
        "Besides, some liquid is leaking out of that battery",
        "The {gadget} battery is overheating while it is charging",
    ),
    "business": (
        "[I|We] [buy|bought|ordered] [it|this] for [my|our|the|a] [company|business|firm|office]",
        "[My|Our|The] [company|firm|business|office] [ordered it|pays for it|bought it] [on a purchase order|with a VAT number|by invoice]",
        "[We are|I write for|This is for] a [company|firm|business] [with a business account|with a VAT number|and pay by purchase order]",
        (
            "The [VAT number|purchase order] of [our|my|the] [company|firm|office|business] [is on file|must be on the "
            "invoice|was sent|is given below]"
        ),
    ),
    "repeat": (
        (
            "[My|Our] [last|first|earlier] [two|three|few] [mails|messages|tickets|letters] [were ignored|got no "
            "answer|were never answered|had no reply]"
        ),
        (
            "[I|We] [wrote|have written|mailed you] [twice|three times|two times] [already|before] [and got no answer|and "
            "were ignored|and nobody answered]"
        ),
        (
            "This is [my|our|the] [second|third|fourth] [mail|message|ticket|letter], [nobody answered|all were ignored|no "
            "answer came|the others were ignored]"
        ),
        "You [ignored|have ignored|never answered] [my|our] [last|first|earlier|two|three] [mails|messages|tickets|letters]",
        (
            "[Nobody|No one] [ever answered|has answered|answered] [my|our] [last|first|earlier] "
            "[mail|message|ticket|letter] [so far|before|yet]"
        ),
    ),
}

HURRY: dict[str, tuple[str, ...]] = {
    "low": (
        "[There is|I have|We have|I see] no [hurry|rush] [at all|here|with this|with it|for me|for us|about it]",
        "[Please|Just|Kindly] take [your|all the] time [with it|with this|for it|over this|for the answer]",
        "[It is|This is|That is] [only|just] a [small|minor|tiny] [matter|thing|question|issue]",
        "[Answer|Reply|Write back|Come back to me] whenever you [like|can|want|have time|have a minute]",
        "[No|Really no|Honestly no] [hurry|rush] [from me|from us|on this|on that|with that]",
    ),
    "high": (
        "[It is|This is|The matter is|That is] [urgent|very urgent|really urgent] [for me|for us|to me|by now|indeed]",
        (
            "[I need|We need|I want] [an answer|a solution|help|this solved] [today|tonight|by tomorrow|at once|by "
            "tonight|as soon as possible]"
        ),
        "Please [act|answer|help|solve it] [today|at once|by tonight|by tomorrow|as soon as possible|quickly]",
        "[My|Our|The] deadline [is|ends] [today|tonight|tomorrow|this evening]",
        "[It|This] [must|has to] be [done|solved|ready|settled] [today|by tonight|at once|by tomorrow|quickly]",
    ),
}

# They say nothing about the label: most of what people write does not. The base model learns that from them.
ASIDES = (
    "I [saw|found] [your shop|it] [last|this] [week|month|year]",
    "We [moved|went] to a new [home|flat|house] on [Monday|Friday|Sunday]",
    "My [wife|husband|friend|neighbour] [told|asked] me [about it|to write] [yesterday|already|this morning]",
    "It [was|is] a [present|gift] for [all of us|my sister|the students|a new neighbour]",
    "I [use|have|own] [it|one] [each day|at home|in the garden|in the kitchen]",
    "[All|Many|Most] people [like|know] [it|your shop|the colour]",
    "I [think|hope|guess] that you [can|could] [help|look into it]",
    "It [happens|happened] [after|because of] [the move|the weekend|the holidays]",
    "Meanwhile the [weather|garden|kitchen] is [hot|fine|done]",
    "I [wrote|looked] at [the page|the site] [on my phone|on my tablet]",
    "[Something|Somewhere] must have [become|gone] [mixed up|different]",
    "Besides, [we|our friends] [are|were] [on holiday|at work] until [next week|Monday]",
    "That is all I [can say|know|want to say] [for now|so far]",
    "I [should|would] [also|maybe] [say|add] that [the price was fine|I like it]",
    "The [three|two] of us [came|sit] [around|inside|outside] the house",
)

FILLERS = {
    "base": Fillers(
        openings=(
            *("Hello", "Hi there", "Dear team", "Good day", "To the support", "Hey", "Dear all", "Hi people"),
            *("Hello shop",),
        ),
        closings=(
            *("Thanks", "Best regards", "Thank you", "Bye", "Regards, Kim", "Yours, Robin", "Kind greetings"),
            *("All good wishes", "Cheers"),
        ),
        items=(
            *("lamp", "chair", "table", "kettle", "blanket", "shelf", "mirror", "rug", "mug", "pan", "desk"),
            *("clock", "vase", "sofa", "pillow", "toaster", "curtain", "stool", "basket", "tray", "wardrobe"),
            *("bench", "grill", "tent", "bottle"),
        ),
        gadgets=("speaker", "drill", "torch", "vacuum", "scooter", "radio"),
        orders=(10000, 39999),
    ),
    "train": Fillers(
        openings=("Good morning", "Hello support", "Dear shop", "Hi team", "Good afternoon"),
        closings=("Many thanks", "Kind regards", "Thanks in advance", "Greetings from Leeds", "Cheers, Dana"),
        items=(
            *("lamp", "chair", "kettle", "blanket", "mirror", "mug", "desk", "vase", "pillow", "curtain", "basket"),
            *("wardrobe", "grill"),
        ),
        gadgets=("speaker", "torch", "scooter"),
        orders=(40000, 69999),
    ),
    "holdout": Fillers(
        openings=("Good evening", "Hello all", "Dear people", "Hi support", "Dear friends"),
        closings=("With thanks", "All the best", "Greetings", "Yours truly, Alex", "Regards from Max"),
        items=(
            *("table", "shelf", "rug", "pan", "clock", "sofa", "toaster", "stool", "tray", "bench", "tent"),
            *("bottle",),
        ),
        gadgets=("drill", "vacuum", "radio"),
        orders=(70000, 99999),
    ),
}
