"""Short sentences in seven languages, written for these tests: everyday topics, often the same."""

from __future__ import annotations

SENTENCES = {
    "en": """The train to the coast leaves at nine every morning.
She forgot her umbrella and got wet on the way home.
We should paint the kitchen before the guests arrive.
Nobody knows where the old map was hidden.
The children built a small house out of cardboard boxes.
Can you tell me how much these apples cost?
He has been learning to play the violin for three years.
There was not a single cloud above the harbour.
My brother works in a factory that makes bicycles.
If it rains tomorrow, the match will be moved to Sunday.
They walked through the forest without saying a word.
This soup needs a little more salt and some fresh herbs.
The library closes early on Wednesdays during the summer.
I would rather stay here than drive all night.
What happened to the letter that you wrote last week?
The doctor said that everything looked fine.
Most of the shops in this street have already closed.
A strange noise woke the whole village up.
Please put the books back on the shelf when you have finished.
Our neighbours grow tomatoes and beans behind their house.""",
    "de": """Der Zug an die Küste fährt jeden Morgen um neun.
Gestern habe ich meinen Schlüssel im Büro liegen lassen.
Wir müssen noch Brot und Käse für das Frühstück kaufen.
Niemand wusste, warum das Licht plötzlich ausging.
Die Kinder haben den ganzen Tag im Garten gespielt.
Könnten Sie mir bitte sagen, wie spät es ist?
Er lernt seit drei Jahren Geige und übt jeden Abend.
Über dem Hafen war keine einzige Wolke zu sehen.
Meine Schwester arbeitet in einem kleinen Krankenhaus.
Wenn es morgen regnet, bleiben wir lieber zu Hause.
Sie gingen durch den Wald, ohne ein Wort zu sprechen.
In dieser Suppe fehlt noch ein wenig Salz.
Die Bücherei schließt im Sommer schon am Nachmittag.
Ich möchte nicht die ganze Nacht hindurch fahren.
Was ist aus dem Brief geworden, den du geschrieben hast?
Der Arzt meinte, dass alles in Ordnung sei.
Die meisten Geschäfte in dieser Straße sind geschlossen.
Ein seltsames Geräusch weckte das ganze Dorf.
Stell bitte das Buch zurück, wenn du fertig bist.
Unsere Nachbarn ziehen Tomaten und Bohnen hinter dem Haus.""",
    "fr": """Le train pour la côte part tous les matins à neuf heures.
J'ai oublié mes clés sur la table de la cuisine.
Nous devons encore acheter du pain et du fromage.
Personne ne savait pourquoi la lumière s'était éteinte.
Les enfants ont joué dans le jardin toute la journée.
Pourriez-vous me dire combien coûtent ces pommes ?
Il apprend le violon depuis trois ans avec sa tante.
Il n'y avait pas un seul nuage au-dessus du port.
Ma sœur travaille dans un petit hôpital de campagne.
S'il pleut demain, le match aura lieu dimanche.
Ils ont traversé la forêt sans dire un mot.
Cette soupe manque un peu de sel et d'herbes fraîches.
La bibliothèque ferme plus tôt pendant l'été.
Je préfère rester ici plutôt que de conduire la nuit.
Qu'est devenue la lettre que tu avais écrite ?
Le médecin a dit que tout allait bien.
La plupart des magasins de cette rue sont déjà fermés.
Un bruit étrange a réveillé tout le village.
Remettez les livres à leur place quand vous aurez fini.
Nos voisins cultivent des tomates derrière leur maison.""",
    "es": """El tren hacia la costa sale todas las mañanas a las nueve.
Ayer dejé las llaves encima de la mesa de la cocina.
Todavía tenemos que comprar pan y queso para el desayuno.
Nadie sabía por qué se había apagado la luz.
Los niños jugaron en el jardín durante todo el día.
¿Podría decirme cuánto cuestan estas manzanas?
Hace tres años que aprende a tocar el violín.
No había ni una sola nube sobre el puerto.
Mi hermana trabaja en un hospital pequeño del pueblo.
Si mañana llueve, el partido será el domingo.
Cruzaron el bosque sin decir una palabra.
A esta sopa le falta un poco de sal.
La biblioteca cierra más temprano en verano.
Prefiero quedarme aquí antes que conducir toda la noche.
¿Qué pasó con la carta que escribiste la semana pasada?
El médico dijo que todo estaba bien.
La mayoría de las tiendas de esta calle ya han cerrado.
Un ruido extraño despertó a todo el pueblo.
Por favor, devuelve los libros cuando hayas terminado.
Nuestros vecinos cultivan tomates detrás de su casa.""",
    "ru": """Поезд к морю отправляется каждое утро в девять.
Вчера я забыл ключи на кухонном столе.
Нам ещё нужно купить хлеб и сыр на завтрак.
Никто не знал, почему вдруг погас свет.
Дети весь день играли в саду за домом.
Скажите, пожалуйста, сколько стоят эти яблоки?
Он уже три года учится играть на скрипке.
Над гаванью не было ни одного облака.
Моя сестра работает в маленькой больнице.
Если завтра пойдёт дождь, мы останемся дома.
Они прошли через лес, не сказав ни слова.
В этом супе не хватает немного соли.
Летом библиотека закрывается раньше обычного.
Я не хочу ехать на машине всю ночь.
Что стало с письмом, которое ты написал?
Врач сказал, что всё в порядке.
Почти все магазины на этой улице уже закрыты.
Странный шум разбудил всю деревню.
Поставь книги на место, когда закончишь читать.
Наши соседи выращивают помидоры и огурцы.""",
    "zh": """去海边的火车每天早上九点出发。
昨天我把钥匙忘在厨房的桌子上了。
我们还得买一些面包和水果。
没有人知道灯为什么突然灭了。
孩子们在花园里玩了一整天。
请问这些苹果多少钱一斤？
他学小提琴已经三年了。
港口上空一片云也没有。
我姐姐在一家小医院工作。
如果明天下雨，比赛就改到星期天。
他们一句话也没说就穿过了树林。
这碗汤还需要放一点盐。
图书馆夏天关门比较早。
我宁愿留在这里，也不想开一整夜的车。
你上个星期写的那封信怎么样了？
医生说一切都很正常。
这条街上的商店大多已经关门了。
一阵奇怪的声音把全村人都吵醒了。
看完以后请把书放回原处。
邻居在屋子后面种了西红柿和豆角。""",
    "ja": """海へ行く電車は毎朝九時に出ます。
昨日、台所の机の上に鍵を忘れました。
朝ご飯のためにパンと果物を買わなければなりません。
どうして急に電気が消えたのか誰も知りません。
子どもたちは一日中庭で遊んでいました。
すみません、このりんごはいくらですか。
彼は三年前からバイオリンを習っています。
港の上には雲が一つもありませんでした。
姉は小さな病院で働いています。
明日雨が降ったら、試合は日曜日になります。
二人は何も言わずに森を通り抜けました。
このスープにはもう少し塩が必要です。
図書館は夏の間、早く閉まります。
一晩中運転するより、ここにいたいです。
先週書いた手紙はどうなりましたか。
お医者さんは大丈夫だと言いました。
この通りの店はほとんど閉まっています。
変な音で村中の人が目を覚ましました。
読み終わったら本を棚に戻してください。
隣の人は家の裏でトマトを育てています。""",
}  # fmt: skip
SAMPLES = {code: text.split("\n") for code, text in SENTENCES.items()}
